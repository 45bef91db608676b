"""What the files of a dataset say: parts, merge, commit, index and state."""
