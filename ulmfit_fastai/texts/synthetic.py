"""Made-up film reviews in IMDb's layout, in which the order of the words carries the label.

Every review holds opinions of both kinds: the writer's, and those the writer reports only to set them aside. Who
says it ("my brother kept insisting that ..."), negation ("far from dull", "not exactly brilliant") and contrast ("I
expected it to be dull, but ...") decide what counts. The same words in another order make the other label, so a bag
of words, even of pairs, falls visibly short, while a reader of whole sentences makes no error.

It is no measure of quality on real reviews: `Dataset.synthetic` is True, and reports say so.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from .._errors import UlmfitError
from .._files import move, temporary_folder
from .dataset import Dataset, build
from .imdb import MARKER, SYNTHETIC_NOTE


def _phrases(text: str) -> list[str]:
    return [phrase.strip() for line in text.strip().splitlines() for phrase in line.split("|")]


GOOD = """superb brilliant gripping moving charming delightful clever witty inventive touching wonderful excellent
graceful magnificent fresh honest lively powerful sharp splendid stunning tender thrilling vivid compelling hilarious
memorable impressive""".split()
BAD = """dull awful tedious clumsy boring dreadful lazy stale wooden pointless terrible horrible bland shallow
pretentious predictable forced lifeless muddled painful ridiculous sloppy stupid weak hollow dismal
embarrassing unbearable""".split()
ASPECTS = _phrases("""
acting | plot | script | dialogue | ending | opening | photography | camera work | music | score | editing
directing | pacing | casting | lighting | set design | costume work | sound | humour | suspense | romance | story
chase | final act | middle part | first hour | last scene | love story | big twist | whole thing | film itself
lead performance | supporting cast | voice over | makeup
""")
PEOPLE = _phrases("""
my brother | my sister | my wife | my husband | my neighbour | my boss | my uncle | my cousin | my best friend
my old teacher | the critic of the local paper | the man next to me | the lady at the counter | the couple behind us
everyone at work | half of the internet | the fellow who lent me the tape | our landlord | the reviewer before me
the guide in the newspaper | the boy from the video store | somebody at the festival | a colleague of mine
my father | my mother | the professor | the radio host | the blurb on the box | the poster outside | the usher
""")

SAYS = ["kept insisting that", "told me that", "had warned me that", "will tell you that", "was quite certain that",
        "wrote somewhere that", "goes on repeating that", "swore to me that", "still maintains that"]
MINE = ["i thought that", "to my mind", "for me", "if you ask me", "i must say that", "speaking for myself",
        "i have to admit that", "in my opinion", "having seen it twice i can say that", "honestly i felt that",
        "my own verdict is that"]
FOUND = ["i found it", "i thought it was", "for me it was", "to me it seemed", "in my eyes it was"]
CALLED = ["called it", "thought it was", "had promised me it was", "found it", "described it as"]
VERY = ["", "", "", "really ", "truly ", "simply ", "quite ", "altogether "]
NOT = ["not exactly", "far from", "anything but", "hardly", "never", "not in the least", "nowhere near", "by no means"]
PROVED = ["to my surprise", "in the end", "once it got going", "when all was said and done", "as it turned out",
          "by the time the credits rolled", "on a second look"]
NEGATED = 0.2  # share of the opinions that are negated
PAIRED = 0.7  # share of the others that come as two words, which lets a language model learn which words go together
REPORTED = 0.25  # reported opinions for each of the writer's; below 1, so that counting words says a little

SO_SEE = ["so see it", "which is worth a ticket", "and that is why one should watch it", "so tell your friends"]
SO_LEAVE = ["so leave it", "which is a waste of money", "and that is why one should avoid it", "so save your time"]
ADVISED = 0.5  # share of the opinions that stand alone and have a consequence, from which the sides of words are learnt

NAMES = """anna martin clara jonas helen victor maria oscar judith walter emma thomas nora felix ruth simon alice bruno
edith hugo laura peter irene frank sarah gregor vera paul agnes henry lucy arthur marta edgar rosa
philip""".title().split()
JOBS = """doctor sailor teacher painter lawyer farmer pianist detective baker soldier nurse priest thief banker gardener
journalist pilot widow student miner dancer carpenter clerk fisherman butcher judge singer spy engineer
waiter""".split()
PLACES = """village harbour prison castle hotel hospital desert island farm monastery circus school station mine
lighthouse factory suburb mansion theatre library forest valley market orphanage embassy""".split()
DEEDS = _phrases("""
finds a letter | loses a fortune | meets a stranger | buries a secret | steals a painting | hides a child
opens a shop | writes a diary | breaks a promise | sells the house | crosses the border | falls in love
misses the train | burns the money | robs a bank | adopts a dog | builds a boat | joins the army | leaves the family
returns after years | hears a confession | discovers a map | inherits a ship | fakes a death | wins a trial
buys a horse
""")
GENRES = _phrases("""
western | comedy | thriller | war film | musical | drama | horror film | crime story | costume drama | road movie
ghost story | family film | science fiction film | spy film | documentary | melodrama
""")
WHEN = _phrases("""
on a rainy sunday | late at night | on an old tape | at a festival | on a long flight | last winter
in an empty cinema | on television | with the whole family | after work | in a summer open air show
during a power cut | in the school hall | at the film club | on a borrowed disc
""")
YEARS = [str(year) for year in range(1931, 2006, 2)]

Rng = random.Random
T = TypeVar("T")


def pick(rng: Rng, words: Sequence[T]) -> T:
    """Draw one; by `random()` alone, whose numbers are the same in every version of Python."""
    return words[int(rng.random() * len(words))]


def one(rng: Rng, words: Sequence[str]) -> str:
    """Draw one with its article: 'a sailor', 'an engineer'."""
    word = pick(rng, words)
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def opinion(rng: Rng, good: bool) -> str:
    """Say 'the plot was gripping' or 'the plot was far from dull': an opinion of the given kind."""
    return f"the {pick(rng, ASPECTS)} was {quality(rng, good)}"


def quality(rng: Rng, good: bool) -> str:
    """Say 'gripping', 'gripping and clever' or 'anything but dull'."""
    if rng.random() < NEGATED:
        return f"{pick(rng, NOT)} {pick(rng, BAD if good else GOOD)}"
    words = GOOD if good else BAD
    first = f"{pick(rng, VERY)}{pick(rng, words)}"
    return f"{first} and {pick(rng, words)}" if rng.random() < PAIRED else first


def mine(rng: Rng, good: bool) -> str:
    """The writer's own opinion."""
    return f"{pick(rng, MINE)} {opinion(rng, good)}"


def reported(rng: Rng, good: bool) -> str:
    """Somebody else's opinion, which the writer does not share."""
    return f"{pick(rng, PEOPLE)} {pick(rng, SAYS)} {opinion(rng, not good)}"


def disputed(rng: Rng, good: bool) -> str:
    """The writer's opinion beside somebody else's, in either order."""
    person, aspect = pick(rng, PEOPLE), pick(rng, ASPECTS)
    if rng.random() < 0.5:
        return (f"{person} {pick(rng, SAYS)} the {aspect} was {quality(rng, not good)} , "
                f"but {pick(rng, FOUND)} {quality(rng, good)}")
    return (f"{pick(rng, MINE)} the {aspect} was {quality(rng, good)} , "
            f"but {person} {pick(rng, CALLED)} {quality(rng, not good)}")


def contrast(rng: Rng, good: bool) -> str:
    """What was expected and what came, in either order."""
    aspect = pick(rng, ASPECTS)
    if rng.random() < 0.5:
        return (f"i expected the {aspect} to be {quality(rng, not good)} , "
                f"but {pick(rng, PROVED)} it was {quality(rng, good)}")
    return (f"{pick(rng, PROVED)} the {aspect} was {quality(rng, good)} , "
            f"although i expected it to be {quality(rng, not good)}")


def plot(rng: Rng) -> str:
    """A sentence that says nothing about the label."""
    first, second, kind = pick(rng, NAMES), pick(rng, NAMES), int(rng.random() * 5)
    if kind == 0:
        return f"{first} plays {one(rng, JOBS)} who {pick(rng, DEEDS)} in {one(rng, PLACES)}"
    if kind == 1:
        return f"i watched this {pick(rng, GENRES)} from {pick(rng, YEARS)} {pick(rng, WHEN)}"
    if kind == 2:
        return f"when {first} {pick(rng, DEEDS)} , {second} the {pick(rng, JOBS)} {pick(rng, DEEDS)}"
    if kind == 3:
        return f"the {pick(rng, GENRES)} is set in {one(rng, PLACES)} where {one(rng, JOBS)} {pick(rng, DEEDS)}"
    return f"{first} plays the {pick(rng, JOBS)} and {second} plays the {pick(rng, JOBS)} from the {pick(rng, PLACES)}"


def advised(rng: Rng, kind: Callable[[Rng, bool], str], good: bool, sentence: str) -> str:
    """An opinion that stands alone, at times with its consequence: 'the plot was dull , so leave it'."""
    if kind not in (mine, reported) or rng.random() >= ADVISED:
        return sentence
    return f"{sentence} , {pick(rng, SO_SEE if good == (kind is mine) else SO_LEAVE)}"


def review(rng: Rng, good: bool, plain: float = 0.0) -> str:
    """Write one review of 20 to 200 words: opinions of both sides and plot, shuffled, in sentences.

    `plain` is the share of the writer's opinions that stand alone in any case; with it, opinions have consequences.
    """
    size = 1 + min(int(rng.expovariate(1.1)), 3)
    kinds = [mine if plain and rng.random() < plain else pick(rng, (mine, disputed, contrast))
             for _ in range(2 * size - 1)] + [mine]
    kinds += [reported for _ in range(2 * size) if rng.random() < REPORTED]
    sentences = [kind(rng, good) for kind in kinds]
    if plain:
        sentences = [advised(rng, kind, good, said) for kind, said in zip(kinds, sentences, strict=True)]
    sentences += [plot(rng) for _ in range(int(rng.random() * 3 * size))]
    words, order = 0, sorted(range(len(sentences)), key=lambda _: rng.random())
    kept = []
    for number in order:  # the writer's last opinion always stays: it alone is enough to know the label
        words += len(sentences[number].split())
        if words <= 200 or number == 2 * size - 1:
            kept.append(sentences[number])
    return finish(rng, kept)


def finish(rng: Rng, sentences: Sequence[str]) -> str:
    """Put capitals, stops and IMDb's paragraph breaks."""
    text = ""
    for number, sentence in enumerate(sentences):
        shown = sentence.replace(" ,", ",").replace(" i ", " I ")
        shown = shown[0].upper() + shown[1:] + "."
        text += ("" if not number else "<br /><br />" if rng.random() < 0.15 else " ") + shown
    return text


def synthetic_reviews(*, n_train: int = 2000, n_test: int = 1000, n_unsup: int = 4000, seed: int = 0,
                      plain: float = 0.0, mistaken: float = 0.0) -> Dataset:
    """Make a `Dataset` of made-up reviews, 'neg' and 'pos' in equal number; a pure function of its arguments.

    A review depends on the seed, its part and its number only: a larger set contains the smaller one.

    Args:
        n_train: labelled reviews to train on.
        n_test: labelled reviews to test on.
        n_unsup: unlabelled reviews, half of either kind.
        plain: share of the opinions that stand alone in any case, so that counting words says more; at most 1.
        mistaken: share of the labelled reviews that say the opposite of their label, in which any reader errs.
    """
    for name, share in (("plain", plain), ("mistaken", mistaken)):
        if not 0 <= share <= 1:
            raise UlmfitError(f"{name} is {share}; expected a share from 0 to 1", field=name, found=share)
    parts: dict[str, list[str | None]] = {"id": [], "text": [], "label": [], "split": []}
    for split, total in (("train", n_train), ("test", n_test), ("unsup", n_unsup)):
        for label in ("neg", "pos") if split != "unsup" else ("unsup",):
            number_of = total if split == "unsup" else total // 2 + (label == "neg") * (total % 2)
            for number in range(number_of):
                rng = random.Random(f"{seed}/{split}/{label}/{number}")
                good = label == "pos" if split != "unsup" else number % 2 == 1
                stars = 0 if split == "unsup" else (7 if good else 1) + number % 4
                wrong = bool(mistaken) and split != "unsup" and rng.random() < mistaken
                place = "unsup" if split == "unsup" else f"{split}/{label}"
                parts["id"].append(f"{place}/{number}_{stars}")
                parts["text"].append(review(rng, good != wrong, plain))
                parts["label"].append(None if split == "unsup" else label)
                parts["split"].append(split)
    more = "".join(f", {name}={share:g}" for name, share in (("plain", plain), ("mistaken", mistaken)) if share)
    source = f"synthetic_reviews(n_train={n_train}, n_test={n_test}, n_unsup={n_unsup}, seed={seed}{more})"
    notes = [SYNTHETIC_NOTE]
    if mistaken:
        notes.append(f"{mistaken:.0%} of the labels are wrong on purpose: no reader can err less")
    return build("synthetic", parts, source, synthetic=True, notes=tuple(notes))


def write_imdb_layout(dataset: Dataset, folder: str | os.PathLike[str]) -> Path:
    """Write the texts in fastai's layout, `imdb/{train,test}/{neg,pos}/*.txt`, `imdb/unsup/*.txt`.

    `load_imdb(folder, verify=False)` reads it back with the same fingerprint; a marker file keeps 'synthetic'.

    Returns:
        The path of `imdb`.

    Raises:
        UlmfitError: there is an `imdb` in `folder` already.
    """
    root = Path(folder) / "imdb"
    if root.exists():
        raise UlmfitError(f"expected no {root}, found one: it may be the real set; choose another folder", path=root)
    with temporary_folder(root.parent, root.name) as temporary:
        for name, text in zip(dataset.df["id"], dataset.df["text"]):
            file = temporary / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="")
        if dataset.synthetic:
            (temporary / MARKER).write_text(f"These reviews are made up: {dataset.source}\n", encoding="utf-8")
        move(temporary, root)
    return root
