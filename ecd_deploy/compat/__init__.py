"""What libraries do not document and this program needs all the same: one module a library, a test for each use."""
