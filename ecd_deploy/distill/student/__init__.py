"""What is read of a student, which is never edited."""
