"""Small programs to copy; tests run them."""
