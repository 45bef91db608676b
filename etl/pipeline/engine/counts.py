"""What a crawl did, as numbers that can be added up. Pure."""

from dataclasses import dataclass, field

from etl.extract.calls import Crawl
from etl.extract.settling import Settling


@dataclass(slots=True)
class Counts:
    """Fields as those of ``Crawl`` and of ``Settling``."""

    calls_fetched: int = 0
    listings: int = 0
    necessary_requests: int = 0
    doubted: set[str] = field(default_factory=set)
    moved: dict[tuple[str, str], str] = field(default_factory=dict)
    compared: int = 0
    saved_requests: int = 0
    listed_differently: int = 0
    fetched_whole: int = 0
    failure: str | None = None

    @classmethod
    def of(cls, crawl: Crawl, settling: Settling) -> "Counts":
        """Those of a crawl so far."""
        return cls(
            calls_fetched=crawl.calls_fetched,
            listings=crawl.listings,
            necessary_requests=crawl.necessary_requests + settling.compared,
            doubted=crawl.doubted,
            moved=crawl.moved,
            compared=settling.compared,
            saved_requests=settling.saved_requests,
            listed_differently=settling.listed_differently,
            fetched_whole=settling.fetched_whole,
            failure=settling.failure,
        )

    def add(self, other: "Counts") -> None:
        """Add those of another crawl, which ended later."""
        self.calls_fetched += other.calls_fetched
        self.listings += other.listings
        self.necessary_requests += other.necessary_requests
        self.doubted |= other.doubted
        self.moved |= other.moved
        self.compared += other.compared
        self.saved_requests += other.saved_requests
        self.listed_differently += other.listed_differently
        self.fetched_whole += other.fetched_whole
        self.failure = other.failure or self.failure
