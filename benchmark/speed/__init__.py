"""What takes how long, measured side by side in one run; one file a table."""
