"""What a table shows: a file a verb, each with its columns and a pure function from an event to a row."""
