"""The Degree of Urbanisation written plainly: whole arrays, NumPy and SciPy, loops over cells."""

import numpy as np
from scipy import ndimage

QUEEN = np.ones((3, 3))
NEIGHBOURS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def clusters(mask, people, least, contiguity):
    """Labels of the large components, 0 elsewhere."""
    label, count = ndimage.label(mask, QUEEN if contiguity == 8 else None)
    sums = ndimage.sum_labels(np.nan_to_num(people), label, np.arange(count + 1))
    sums[0] = -1
    return np.where(sums[label] >= least, label, 0)


def smoothed(values, window):
    if window is None:
        return values
    wide = np.pad(values.astype(float), window // 2, constant_values=np.nan)
    parts = np.lib.stride_tricks.sliding_window_view(wide, (window, window))
    known = (~np.isnan(parts)).sum((-1, -2))
    with np.errstate(invalid="ignore"):
        return np.nansum(parts, axis=(-1, -2)) / np.where(known, known, np.nan)


def at(grid, y, x, beyond):
    inside = 0 <= y < grid.shape[0] and 0 <= x < grid.shape[1]
    return grid[y, x] if inside else beyond


def grown(centre, water, ignored, rule):
    """All cells of a round join at once, until none does."""
    while True:
        new = centre.copy()
        for y, x in np.argwhere(ndimage.binary_dilation(centre > 0, QUEEN) & (centre == 0)):
            if rule == "R2023A" and water[y, x]:
                continue
            near = [at(centre, y + i, x + j, 0) for i, j in NEIGHBOURS]
            void = [at(water | ignored, y + i, x + j, False) for i, j in NEIGHBOURS]
            counted = sum(c > 0 or not v for c, v in zip(near, void, strict=True))
            best = max({c for c in near if c > 0}, key=near.count)
            enough = near.count(best) >= 5 if rule == "R2022A" else 2 * near.count(best) > counted
            if enough:
                new[y, x] = best
        if (new == centre).all():
            return centre
        centre = new


def filled(centre, gap):
    """Every centre fills the small patches that it encloses; the first one takes a cell."""
    full = centre.copy()
    for number in np.unique(centre[centre > 0]):
        label, count = ndimage.label(centre != number, QUEEN)
        rim = np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]])
        sizes = np.bincount(label.ravel(), minlength=count + 1)
        for patch in set(range(1, count + 1)) - set(rim.tolist()):
            if sizes[patch] < gap:
                full[(label == patch) & (full == 0)] = number
    return full


def numbered(centre):
    """Centres by their first cell, -1 elsewhere."""
    numbers, first = np.unique(centre[centre > 0], return_index=True)
    rank = dict(zip(numbers[np.argsort(first)].tolist(), range(len(numbers)), strict=True))
    return np.vectorize(lambda number: rank.get(number, -1), otypes=[int])(centre)


def classify(people, land, built, area, level, rules):
    """Codes, and centres by number."""
    ground = np.ones(people.shape) if land is None else land
    people = people.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        density = people / (area * ground)
        share = np.full(people.shape, np.nan) if built is None else np.round(built / ground, 3)
    water = (np.isnan(ground) | (ground < rules.water_land)) & ~(people > rules.water_people)
    water &= np.full(people.shape, True) if built is None else ~(built > rules.water_built)

    def dense(name, threshold):
        window = getattr(rules, f"{name}_window", None)
        mask = smoothed(density, window) >= getattr(rules, f"{name}_density")
        if threshold is not None and built is not None:
            mask |= share >= threshold
        counted = smoothed(people, window)
        least, contiguity = getattr(rules, f"{name}_people"), getattr(rules, f"{name}_contiguity")
        return clusters(mask, counted, least, contiguity)

    def threshold(value):
        if value != "optimal":
            return value
        name, least = (
            ("dense", rules.dense_people) if level == 2 else ("centre", rules.cluster_people)
        )
        mask = density >= getattr(rules, f"{name}_density")
        inside = clusters(mask, people, least, getattr(rules, f"{name}_contiguity")) > 0
        known = built[inside & ~np.isnan(built)]
        return known.mean() if known.size else np.inf

    centre = dense("centre", threshold(rules.centre_built))
    if rules.centre_edge:
        counted = smoothed(people, rules.centre_window)
        ignored = (ground < rules.water_land) & (counted <= 0)
        centre = grown(centre, water, ignored, rules.centre_edge)
    centre = filled(centre, rules.centre_gap) if rules.centre_gap else centre
    urban = centre > 0
    if level == 1:
        codes = np.ones(people.shape, np.int8)
        codes[dense("cluster", None) > 0] = 2
        codes[urban] = 3
        codes[(codes == 1) & water] = 0
        return codes, numbered(centre)
    codes = np.full(people.shape, 11, np.int8)
    codes[density >= rules.low_density] = 12
    codes[dense("rural", None) > 0] = 13
    codes[dense("suburban", None) > 0] = 21
    town = dense("dense", threshold(rules.dense_built)) > 0
    semidense = dense("semidense", None)
    near = urban | town
    for _ in range(rules.semidense_buffer):
        near = ndimage.binary_dilation(near, QUEEN)
    codes[(semidense > 0) & ~np.isin(semidense, semidense[near])] = 22
    codes[town] = 23
    codes[urban] = 30
    codes[(codes == 11) & water] = 10
    return codes, numbered(centre)
