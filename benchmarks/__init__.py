"""Speed, shown as a ratio against the alternative in the same run."""
