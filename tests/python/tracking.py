"""Scores trackers on MOTChallenge sequences and holds them against independent implementations.

    tracking.py compare TRACK_MOT [--gt FILE]...
    tracking.py bench TRACK_MOT [--rounds N]

`TRACK_MOT` is the example `track_mot` of `revoada-pipeline`. Sequences are those that the package `motmetrics` ships
(TUD-Campus and TUD-Stadtmitte), or any ground truth in MOTChallenge's format. Detections are made from the ground truth
by a generator with a seed: it misses objects, trembles, and sees what is not there. `compare` prints one JSON object a
line and algorithm; MOTA and IDF1 are by `motmetrics`, HOTA is by `trackeval`, both at an overlap of a half and more.

What is compared with, and how each was brought to what its authors' own code does:

- `sort-tracker-py` is the code of SORT's author, behind a package; nothing is changed.
- `cjm-byte-track` follows ByteTrack's code but for three things, which are put right here: boxes overlap by their corners
  as points, where the original counts corners as pixels; the original weighs overlaps with scores; and its filter begins
  less sure (by factors of 2 and 10) and believes a measured ratio of sides less.
- `techainer-ocsort` is the code of OC-SORT's authors with another output and another life of tracks. Its thresholds are
  applied before it, tracks live as long as the original has it, and what is told is read from its state.
"""

import argparse
import collections
import functools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np

# pandas and numpy announce changes to what the packages above still use.
warnings.simplefilter("ignore")
import cjm_byte_track.core
import cjm_byte_track.matching
import motmetrics
import ocsort.tracker
import sort_tracker
import trackeval

SCORE_HIGH = 0.6
LOST_FRAMES_MAX = 30
DISTANCE_MAX = 0.9
HITS_MIN = 3


def by_frame(rows):
    frames = collections.defaultdict(list)
    for row in rows:
        frames[int(row[0])].append(row)
    return frames


def read(path):
    with open(path) as file:
        return [[float(field) for field in line.split(",")] for line in file if line.strip()]


def write(path, rows):
    with open(path, "w") as file:
        file.writelines(f"{int(row[0])},-1," + ",".join(str(value) for value in row[2:7]) + ",-1,-1,-1\n" for row in rows)


def detections(truth, seed, missed=0.1, false_alarms=0.5, tremble=0.03):
    """Detections of a ground truth, sorted by falling score as a decoder has them. Numbers are such that a 32-bit
    float holds them exactly."""
    chance = random.Random(seed)
    grid = lambda value: round(value * 64) / 64
    right = max(row[2] + row[4] for row in truth)
    bottom = max(row[3] + row[5] for row in truth)
    frames = by_frame(truth)
    out = []
    for frame in range(1, max(frames) + 1):
        found = []
        for _, _, x, y, width, height, *_ in frames[frame]:
            score = min(max(chance.gauss(0.75, 0.2), 0.05), 0.99)
            off = [chance.gauss(0, tremble) for _ in range(4)]
            if chance.random() >= missed:
                box = [x + off[0] * width, y + off[1] * height, width * (1 + off[2]), height * (1 + off[3])]
                found.append([frame, -1, *box, score])
        while chance.random() < false_alarms / (1 + false_alarms):
            width = chance.uniform(20, 80)
            box = [chance.uniform(0, right - width), chance.uniform(0, bottom - 2 * width), width, 2 * width]
            found.append([frame, -1, *box, chance.uniform(0.05, 0.8)])
        found = [[*row[:2], *(grid(max(value, 1)) for value in row[2:6]), round(row[6] * 256) / 256] for row in found]
        out += sorted(found, key=lambda row: -row[6])
    return out


def crowd(seed, objects, frames):
    """A ground truth of people who walk about and turn round at the border of a 1080p picture."""
    chance = random.Random(seed)
    people = []
    for number in range(objects):
        width = chance.uniform(25, 60)
        speed = [chance.gauss(0, 3), chance.gauss(0, 1.5)]
        people.append([number + 1, chance.uniform(100, 1760), chance.uniform(100, 860), width, 2.4 * width, *speed])
    rows = []
    for frame in range(1, frames + 1):
        for person in people:
            for axis, limit in ((1, 1800), (2, 900)):
                person[axis] += person[axis + 4]
                if not 60 < person[axis] < limit:
                    person[axis + 4] *= -1
                person[axis + 4] += chance.gauss(0, 0.1)
            rows.append([frame, person[0], *person[1:5], 1])
    return rows


def corners(rows):
    boxes = [[x, y, x + width, y + height, *score[:1]] for _, _, x, y, width, height, *score in rows]
    return np.array(boxes or np.empty((0, 5)))


def box(left, top, right, bottom, *_):
    return [left, top, right - left, bottom - top]


class Sort:
    def __init__(self):
        sort_tracker.sort.KalmanBoxTracker.count = 0
        self.tracker = sort_tracker.Sort(max_age=1, min_hits=HITS_MIN, iou_threshold=0.3)

    def update(self, found):
        return [[int(track[-1]), *box(*track)] for track in self.tracker.update(found)]


def overlaps(some, others, edge=0):
    """Intersection over union of boxes by their corners; right and lower ones are pixels inside where `edge` is 1."""
    size = lambda boxes: (boxes[:, 2] - boxes[:, 0] + edge) * (boxes[:, 3] - boxes[:, 1] + edge)
    least = np.maximum(some[:, None, :2], others[None, :, :2])
    most = np.minimum(some[:, None, 2:4], others[None, :, 2:4])
    shared = np.prod(np.maximum(most - least + edge, 0), axis=2)
    return shared / (size(some)[:, None] + size(others)[None] - shared)


class ByteTracker(cjm_byte_track.core.BYTETracker):
    def _match_tracks_to_detections(self, stracks, detections, thresh):
        distances = cjm_byte_track.core.iou_distance(stracks, detections)
        # Only the second match, of weak detections, is not weighed.
        if distances.size and thresh != 0.5:
            distances = 1 - (1 - distances) * np.array([found.score for found in detections])
        return cjm_byte_track.core.linear_assignment(distances, thresh=thresh)


class HeightFilter(cjm_byte_track.core.KalmanFilter):
    def initiate(self, measurement):
        mean, covariance = super().initiate(measurement)
        factors = np.array([2, 2, 1, 2, 10, 10, 1, 10])
        return mean, covariance * factors[:, None] * factors

    def project(self, mean, covariance):
        mean, covariance = super().project(mean, covariance)
        covariance[2, 2] += 1e-1**2 - 1e-2**2
        return mean, covariance


class ByteTrack:
    def __init__(self):
        cjm_byte_track.matching.box_iou_batch = functools.partial(overlaps, edge=1)
        self.tracker = ByteTracker(SCORE_HIGH, LOST_FRAMES_MAX, DISTANCE_MAX)
        self.tracker.kalman_filter = HeightFilter()

    def update(self, found):
        tracks = self.tracker.update(found, (1, 1), (1, 1))
        return [[track.track_id, *track.tlwh] for track in tracks]


class OcSort:
    def __init__(self):
        ocsort.tracker.KalmanBoxTracker.is_alive = lambda track: track.time_since_update <= LOST_FRAMES_MAX
        self.tracker = ocsort.tracker.OCSort(min_hits=HITS_MIN)

    def update(self, found):
        self.tracker.update(found[found[:, 4] > SCORE_HIGH])
        early = self.tracker.frame_count <= HITS_MIN
        tracks = [track for track in self.tracker.trackers if track.time_since_update < 1]
        last = lambda track: track.last_observation if track.last_observation.sum() >= 0 else track.get_state()[0]
        return [[track.id, *box(*last(track))] for track in tracks if early or track.hit_streak >= HITS_MIN]


REFERENCES = {"sort": Sort, "bytetrack": ByteTrack, "ocsort": OcSort}


def theirs(algorithm, found):
    """Tracks by an independent implementation, and how long it took."""
    tracker, frames, out, spent = REFERENCES[algorithm](), by_frame(found), [], 0.0
    for frame in range(1, max(frames) + 1):
        boxes = corners(frames[frame])
        started = time.perf_counter()
        tracks = tracker.update(boxes)
        spent += time.perf_counter() - started
        out += [[frame, *track] for track in tracks]
    return out, spent


def ours(program, algorithm, path):
    ran = subprocess.run([program, path, f"algorithm={algorithm}"], capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f"`{program}` failed:\n{ran.stderr}")
    tracks = [[float(field) for field in line.split(",")[:6]] for line in ran.stdout.splitlines()]
    return tracks, float(ran.stderr.rsplit("seconds=", 1)[1])


def differences(some, others):
    """How many boxes one has and the other has not, to a hundredth of a pixel, or has in another track."""
    some, others = by_frame(some), by_frame(others)
    names, back, count = {}, {}, 0
    for frame in some.keys() | others.keys():
        left = list(others[frame])
        for row in some[frame]:
            same = [other for other in left if np.abs(np.subtract(row[2:6], other[2:6])).max() < 0.01]
            if not same:
                count += 1
                continue
            left.remove(same[0])
            count += names.setdefault(row[1], same[0][1]) != same[0][1] or back.setdefault(same[0][1], row[1]) != row[1]
        count += len(left)
    return count


def scores(truth, tracks):
    """MOTA, IDF1 and HOTA, 0 to 1."""
    truth, tracks = by_frame(truth), by_frame(tracks)
    frames = range(1, max(truth) + 1)
    events = motmetrics.MOTAccumulator()
    numbers = lambda rows: {name: number for number, name in enumerate(sorted({row[1] for f in rows.values() for row in f}))}
    of_truth, of_tracks = numbers(truth), numbers(tracks)
    data = {"gt_ids": [], "tracker_ids": [], "similarity_scores": []}
    for frame in frames:
        ids = [[row[1] for row in rows[frame]] for rows in (truth, tracks)]
        overlap = overlaps(*(corners(rows[frame]) for rows in (truth, tracks)))
        events.update(*ids, np.where(overlap >= 0.5, 1 - overlap, np.nan), frameid=frame)
        data["gt_ids"].append(np.array([of_truth[name] for name in ids[0]], dtype=int))
        data["tracker_ids"].append(np.array([of_tracks[name] for name in ids[1]], dtype=int))
        data["similarity_scores"].append(overlap.reshape(len(ids[0]), len(ids[1])))
    data |= {"num_gt_ids": len(of_truth), "num_tracker_ids": len(of_tracks)}
    data["num_gt_dets"] = sum(len(truth[frame]) for frame in frames)
    data["num_tracker_dets"] = sum(len(tracks[frame]) for frame in frames)
    clear = motmetrics.metrics.create().compute(events, metrics=["mota", "idf1", "num_switches"], return_dataframe=False)
    hota = float(np.mean(trackeval.metrics.HOTA().eval_sequence(data)["HOTA"]))
    return {"mota": float(clear["mota"]), "idf1": float(clear["idf1"]), "switches": int(clear["num_switches"]), "hota": hota}


def shipped():
    folder = os.path.join(os.path.dirname(motmetrics.__file__), "data")
    return [os.path.join(folder, name, "gt.txt") for name in ("TUD-Campus", "TUD-Stadtmitte")]


def compare(program, files):
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            # What is not to be counted is marked by a 0 in MOTChallenge.
            truth = [row for row in read(file) if row[6] != 0]
            for seed in (1, 2, 3):
                found = detections(truth, seed, missed=0.05 * seed, false_alarms=0.4 * seed)
                path = os.path.join(folder, "det.txt")
                write(path, found)
                for algorithm in REFERENCES:
                    (mine, _), (other, _) = ours(program, algorithm, path), theirs(algorithm, found)
                    name = os.path.basename(os.path.dirname(file))
                    line = {"sequence": name, "seed": seed, "algorithm": algorithm, "boxes": len(other)}
                    line |= {"tracks": len({row[1] for row in other}), "differences": differences(other, mine)}
                    print(json.dumps(line | {"ours": scores(truth, mine), "theirs": scores(truth, other)}), flush=True)


def bench(program, rounds):
    """Frames per second of the update alone, ours against the Python of the same algorithm, by turns."""
    print("| tracker | objects | Python, frames/s | revoada, frames/s | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "det.txt")
        for objects, frames in ((10, 300), (200, 120)):
            found = detections(crowd(1, objects, frames), 1, missed=0.05)
            write(path, found)
            for algorithm in REFERENCES:
                times = [(theirs(algorithm, found)[1], ours(program, algorithm, path)[1]) for _ in range(rounds)]
                other, mine = (frames / statistics.median(column) for column in zip(*times))
                print(f"| {algorithm} | {objects} | {other:.1f} | {mine:.0f} | {mine / other:.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("compare", "bench"):
        verbs.add_parser(verb).add_argument("program")
    verbs.choices["compare"].add_argument("--gt", action="append")
    verbs.choices["bench"].add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.verb == "compare":
        compare(args.program, args.gt or shipped())
    else:
        bench(args.program, args.rounds)


if __name__ == "__main__":
    main()
