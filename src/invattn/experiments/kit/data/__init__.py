"""Real images: embedded photographs, CIFAR-10, SVHN, CelebA and any folder of images."""
