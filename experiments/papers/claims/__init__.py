"""Claims of papers, one paper to a file."""
