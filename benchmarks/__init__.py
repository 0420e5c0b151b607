"""What the numbers in the README were measured with."""
