"""Names of files that hold sound, for folders in which there are pictures, texts and archives, too.

Files with other suffixes are read as well when they are named.
"""

from __future__ import annotations

# What libsndfile or ffmpeg read.
_SOUND = """
    .wav .wave .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .w64 .rf64 .bwf .au .snd .caf .sf
    .voc .nist .sph .avr .paf .iff .8svx .sds .wve .mp1 .mp2 .mpga .spx .m4a .m4b .m4r .aac
    .adts .alac .wma .weba .mka .amr .ac3 .eac3 .dts .wv .ape .tta .tak .mpc .dsf .dff .shn .ra
    .rm .htk .pvf .xi .mlp .thd .dtshd .oma .aa3 .at3 .gsm .qcp .xwma .qoa .vqf .adx .sox
"""
# What holds pictures as well in most cases.
_VIDEO = """
    .mp4 .m4v .mov .qt .3gp .3g2 .webm .mkv .wmv .asf .ogv .ogx .mpg .mpeg .ts .mts .m2ts .avi
    .flv .vob
"""
SOUND_SUFFIXES = frozenset(_SOUND.split())
VIDEO_SUFFIXES = frozenset(_VIDEO.split())
