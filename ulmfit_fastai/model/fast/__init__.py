"""What was made faster than fastai, behind the one switch `Recipe.fast`."""
