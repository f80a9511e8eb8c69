"""What a student looks at and how its features lie."""
