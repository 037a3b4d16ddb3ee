"""What a process is beyond its pid and its name: where it runs, and what it was started as."""
