"""What tests of more than one package share: a victim to fill, and an image to fill it from."""
