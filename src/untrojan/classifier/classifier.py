"""A trained network together with what it needs to be used: preprocessing, bounds, class names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from untrojan.errors import ShapeError, UnsupportedError, UsageError
from untrojan.storage import tensors_sha256

PASS_BYTES = 2 * 2**30
"""What a pass with gradients may keep for its way back."""


class Classifier(nn.Module):
    """Images in [0, 1] to logits.

    module: any network that maps float32 [N, C, H, W] to logits [N, K], not to probabilities.
    mean, std: per channel, in [0, 1] image units; the input is normalised with them (default: not at all).
    class_names: K names; ``num_classes`` follows from them, or from the first batch that passes.
    input_shape: (C, H, W) that the network wants; None means whatever the images have.

    >>> classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    >>> classifier(torch.zeros(5, 3, 2, 2)).shape
    torch.Size([5, 2])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
        input_shape: tuple[int, int, int] | None = None,
    ):
        super().__init__()
        if not isinstance(module, nn.Module):
            raise UnsupportedError(f"a classifier is made from a torch.nn.Module, got {type(module).__name__}")
        # A compiled network does not call hooks that its layers are given later, and corrections and counts are made of
        # these: its original has the same tensors.
        original = module._orig_mod if type(module).__name__ == "OptimizedModule" else module
        self.module: nn.Module = original if isinstance(original, nn.Module) else module
        self.class_names = None if class_names is None else tuple(str(name) for name in class_names)
        self.input_shape = None if input_shape is None else tuple(input_shape)
        offsets, scales = list(mean) if mean is not None else [0.0], list(std) if std is not None else [1.0]
        if len(offsets) != len(scales) and 1 not in (len(offsets), len(scales)):
            raise UsageError(f"mean has {len(offsets)} values and std {len(scales)}; give one per channel each")
        if any(not 0 < s < float("inf") for s in scales):
            raise UsageError(f"std must be positive, got {scales}")
        first = next(module.parameters(), None)
        device = first.device if first is not None else torch.device("cpu")
        for name, values in (("mean", offsets), ("std", scales)):
            per_channel = torch.tensor(values, device=device, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, per_channel, persistent=False)
        self._memory_format: torch.memory_format | None = None
        self.images_per_pass: int | None = None
        """How many images a pass with gradients should have, for the sake of memory; None until
        ``require_gradient`` has measured what one takes."""
        self.normalises = mean is not None or std is not None
        self.training = module.training  # the flag alone: some of the network's layers may be frozen

    @property
    def device(self) -> torch.device:
        """Where the network's parameters live."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, K] of images [N, C, H, W]: uint8 in 0..255, or floating point in [0, 1]."""
        logits = self.module(self.normalise(self.as_float(images)))
        if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.is_floating_point():
            came = f"{logits.dtype} {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise UnsupportedError(
                f"the network must return logits [N, K], it returned {came}; wrap it so that it does"
            )
        return logits

    def normalise(self, images: Tensor) -> Tensor:
        """Apply mean and std to float images; always a tensor of its own, which a network may change in place."""
        return (images - self.mean) / self.std if self.normalises else images.clone()

    def as_float(self, images: Tensor) -> Tensor:
        """Float32 images in [0, 1] on this classifier's device; raises ShapeError if they cannot be that."""
        if not isinstance(images, Tensor) or images.ndim != 4:
            came = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ShapeError(f"expected a batch of images [N,C,H,W], got {came}")
        if self.input_shape is not None and tuple(images.shape[1:]) != self.input_shape:
            raise ShapeError(
                f"this classifier takes images of shape {'x'.join(map(str, self.input_shape))}, "
                f"got {'x'.join(map(str, images.shape[1:]))}"
            )
        channels = max(self.mean.shape[1], self.std.shape[1])
        if channels not in (1, images.shape[1]):
            raise ShapeError(
                f"mean and std have {channels} values, one per channel, and the images have {images.shape[1]} channels"
            )
        if images.dtype == torch.uint8:
            return images.to(self.device).to(torch.float32) / 255
        if not images.is_floating_point():
            raise ShapeError(f"expected uint8 images in 0..255 or float images in [0, 1], got {images.dtype}")
        return images.to(self.device, torch.float32)

    @staticmethod
    def require_range(images: Tensor, slack: float = 0.0) -> None:
        """Raise ShapeError for float images that are not finite or go beyond [0, 1] by more than ``slack``, and for
        what is no tensor."""
        if not isinstance(images, Tensor):
            raise ShapeError(f"expected a batch of images [N,C,H,W], got {type(images).__name__}")
        if not images.is_floating_point() or images.numel() == 0:
            return
        low, high = images.detach().aminmax()  # NaN if there is one
        if not (-slack <= float(low) and float(high) <= 1 + slack):
            raise ShapeError("float images must be finite and lie in [0, 1]; give uint8 images for values in 0..255")

    def arranged(self, images: Tensor) -> Tensor:
        """The same images in the memory format that this network runs fastest in; to be called in evaluation mode.

        Channels last is faster for convolutions, but a network that flattens its features with ``view`` refuses it: the
        first call tries.
        """
        if self._memory_format is None:
            self._memory_format = torch.channels_last
            try:
                with torch.no_grad():
                    self(images[:2].detach().contiguous(memory_format=torch.channels_last))
            except RuntimeError:
                self._memory_format = torch.contiguous_format
        return images.contiguous(memory_format=self._memory_format)

    @torch.no_grad()
    def predict(self, images: Tensor, batch_size: int | None = None) -> Tensor:
        """Logits [N, K] of any number of images, batch by batch, in evaluation mode, without gradients.

        batch_size: default 256, of images larger than 64 x 64 fewer.
        """
        if batch_size is None:
            batch_size = max(16, min(256, 256 * 64**2 // max(1, images.shape[2:].numel())))
        # Module by module: a network may freeze some of its layers in evaluation mode while it trains.
        modes = [(module, module.training) for module in self.modules()]
        for module, _ in modes:
            module.training = False
        try:
            parts = [self(self.arranged(self.as_float(batch))) for batch in torch.split(images, batch_size)]
            return torch.cat(parts)
        finally:
            for module, training in modes:
                module.training = training

    def require_steady(self, images: Tensor) -> None:
        """Raise UnsupportedError if the answer to an image depends on those that are passed together with it, or on
        chance; to be called in evaluation mode. images: float [N, C, H, W]; three are passed, two of them twice."""
        three = torch.cat([images[:1], images[len(images) // 2][None], images[-1:]])
        with torch.no_grad():
            # Among two and among three: a batch's own statistics may make the same of an image beside any one other.
            one, other = self(three[:2]).float(), self(three).float()[:2]
        if float((one - other).abs().max()) > 0.01 * (1 + float(one.abs().max())):
            raise UnsupportedError(
                "the network's answer to an image changes with the other images of its batch, or from pass to pass, in "
                "evaluation mode too (a BatchNorm without running statistics, dropout that stays on?)"
            )

    def require_gradient(self, images: Tensor) -> None:
        """Raise UnsupportedError if the answers have no gradient in the images; to be called in evaluation mode with
        frozen parameters. Notes how many images fit into a pass.

        images: float [N, C, H, W]; two of them are passed.
        """
        probe = images[:2].detach().clone()
        with torch.no_grad():
            self(probe)  # whatever else is wrong with the network is not taken for a missing gradient
        try:
            with torch.enable_grad():
                torch.autograd.grad(self(probe.requires_grad_(True)).sum(), probe)
        except RuntimeError as error:
            if "memory" in str(error):
                raise
            text = " ".join(str(error).split())[:120]
            raise UnsupportedError(
                f"the network's answers have no gradient in its images, and triggers are searched with it ({text}); "
                "take no_grad, detach and operations without a gradient out of its forward"
            ) from None
        self.images_per_pass = max(1, PASS_BYTES * len(probe) // max(1, self._kept(probe)))

    def _kept(self, images: Tensor) -> int:
        """The bytes that a pass of these images, which want a gradient, keeps for its way back."""
        own = {tensor.untyped_storage().data_ptr() for tensor in self.state().values()}
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = self(images)
        del logits  # and with it what was kept, which until here no other tensor could take the place of
        return sum(kept.values())

    def state(self) -> dict[str, Tensor]:
        """The module's parameters and buffers by name, without what ``get_extra_state`` adds that is no tensor."""
        return {name: value for name, value in self.module.state_dict().items() if isinstance(value, Tensor)}

    def sha256(self) -> str:
        """A hash of the network's parameters and buffers and of the preprocessing: the victim's identity.

        It does not depend on the file format that the weights came in, nor on the device, nor on whether a mean that is
        the same for all channels was given once or for each.
        """
        channels = [values.flatten().tolist() for values in (self.mean, self.std)]
        return tensors_sha256(
            self.state(), str(tuple(values if len(set(values)) > 1 else values[:1] for values in channels))
        )
