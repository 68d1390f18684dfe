"""Everything that more than one test module uses, a module for each subject."""
