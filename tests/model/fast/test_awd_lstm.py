"""What fastai's AWD-LSTM is given differently, piece by piece."""

from __future__ import annotations

import torch

from ulmfit_fastai.model.fast import awd_lstm


def test_weights_for_cudnn_lie_one_behind_the_other_and_pass_gradients_on():
    weights = [torch.randn(shape, requires_grad=True) for shape in ((20, 6), (20, 5), (20,), (20,))]
    pieces = awd_lstm._in_one_piece(weights, torch.float16)
    offsets = [piece.storage_offset() for piece in pieces]
    assert offsets == [0, 120, 220, 240] and len({piece.untyped_storage().data_ptr() for piece in pieces}) == 1
    assert all(piece.is_contiguous() and torch.equal(piece, w.half()) for piece, w in zip(pieces, weights))
    sum((k + 1) * piece.float().sum() for k, piece in enumerate(pieces)).backward()
    assert [float(w.grad.unique()) for w in weights] == [1.0, 2.0, 3.0, 4.0]
