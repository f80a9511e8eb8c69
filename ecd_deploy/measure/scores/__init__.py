"""What a classifier scores on labelled images, with its bounds."""
