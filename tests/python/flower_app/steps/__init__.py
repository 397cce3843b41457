"""What clients of Flower learn in Revoada's tests."""
