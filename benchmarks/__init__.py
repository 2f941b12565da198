"""Stock fastai and this package side by side: `python -m benchmarks`. What bags of words reach: `bag_of_words`."""
