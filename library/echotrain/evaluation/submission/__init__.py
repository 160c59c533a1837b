"""Challenge submissions: written from reconstructions and checked, by the rules that each challenge's own validator applies."""

from echotrain.evaluation.submission.challenge import Challenge, ExpectedFile, Problem
from echotrain.evaluation.submission.cmrxrecon import CmrxreconChallenge, ranking_crop
from echotrain.evaluation.submission.fastmri import FastmriChallenge
from echotrain.evaluation.submission.mosaic import TRACKS, MosaicChallenge
from echotrain.evaluation.submission.submit import Submission, check_submission, find_problems, write_submission

__all__ = [
    "TRACKS",
    "Challenge",
    "CmrxreconChallenge",
    "ExpectedFile",
    "FastmriChallenge",
    "MosaicChallenge",
    "Problem",
    "Submission",
    "check_submission",
    "find_problems",
    "ranking_crop",
    "write_submission",
]
