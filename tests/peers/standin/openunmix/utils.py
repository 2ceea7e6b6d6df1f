"""What keeps count in a training."""

from umx_np.optim import EarlyStopping

__all__ = ["AverageMeter", "EarlyStopping"]


class AverageMeter:
    """A mean. umx_np has no such class: its trainer sums with weights."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def update(self, value: float) -> None:
        """Take a value."""
        self.values.append(value)

    @property
    def avg(self) -> float:
        """Mean of what was taken."""
        return sum(self.values) / len(self.values)
