"""A small project with a fault that its own tests find: what people send such a task for."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.journey.test_kills import IDENTITY

FILES = {
    "README.md": "# Basket\n\nPrices, discounts and totals of a shop.\n",
    "basket.py": '''"""A shop's basket: what is in it, and what it costs."""


class Basket:
    def __init__(self) -> None:
        self.items: list[tuple[str, int, float]] = []

    def add(self, name: str, count: int, price: float) -> None:
        if count <= 0:
            raise ValueError(f"{name}: the count must be positive")
        self.items.append((name, count, price))

    def total(self) -> float:
        return sum(count + price for _, count, price in self.items)

    def discounted(self, percent: float) -> float:
        """The total after a discount of so many percent."""
        return round(self.total() * (1 - percent / 100), 2)
''',
    "test_basket.py": """import unittest

from basket import Basket


class BasketTest(unittest.TestCase):
    def setUp(self) -> None:
        self.basket = Basket()

    def test_an_empty_basket_costs_nothing(self) -> None:
        self.assertEqual(self.basket.total(), 0)

    def test_each_item_costs_its_price_times_its_count(self) -> None:
        self.basket.add("apple", 3, 0.5)
        self.basket.add("bread", 1, 2.5)
        self.assertEqual(self.basket.total(), 4.0)

    def test_a_discount_comes_off_the_total(self) -> None:
        self.basket.add("tea", 2, 10)
        self.assertEqual(self.basket.discounted(10), 18.0)

    def test_nothing_cannot_be_added(self) -> None:
        with self.assertRaises(ValueError):
            self.basket.add("air", 0, 1)


if __name__ == "__main__":
    unittest.main()
""",
}


def make_project(folder: Path) -> Path:
    """A bare repository of it, as a host would have it."""
    work = folder.with_suffix(".work")
    work.mkdir(parents=True)
    for name, text in FILES.items():
        (work / name).write_text(text)
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "Prices and discounts"]):
        subprocess.run(["git", *command], cwd=work, check=True, env=IDENTITY)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(folder)], check=True)
    return folder
