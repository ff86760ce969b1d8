"""What work costs: operations, memory, and the record of what was spent."""
