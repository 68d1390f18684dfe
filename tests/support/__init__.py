"""Code that more than one test module uses; each module has one subject."""
