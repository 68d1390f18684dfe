"""Code for more than one test module; each module here has one subject."""
