/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The MESSAGE_ID of every journal record that an administrator may want to find
 * or have explained.  Each has an entry in units/blockjobd.catalog, which
 * `journalctl -x` prints beside the record; a test holds the two together.
 *
 * An id never changes its meaning.  A new one comes from `systemd-id128 new`.
 */

#pragma once

#define MESSAGE_IDS(X)                                                      \
        X(MESSAGE_JOB_STARTED, "21ceabd7a51a4178b1bbad3a1412c8ba")          \
        X(MESSAGE_JOB_READY, "e5b3cb0ad72c4ed6ac5881329fcd3c0b")            \
        X(MESSAGE_PIVOT_DECIDED, "005b5064bc6943118ab76dceff3a04aa")        \
        X(MESSAGE_JOB_COMPLETED, "72b229f6e3114ef9b59ea783d65f5395")        \
        X(MESSAGE_JOB_KEPT, "9821c6d6868645c4bf7a193d3ff0c585")             \
        X(MESSAGE_JOB_CANCELLED, "bcbb3235649c411a8fe0d1f9a1b2d705")        \
        X(MESSAGE_JOB_FAILED, "616898e5a39d43ed933c79cca4b26fd1")           \
        X(MESSAGE_JOB_LOST, "29b9b231039d4499bcb0107bf3097435")             \
        X(MESSAGE_JOB_PIVOTED, "92bf2a7bdb174dbc892260387caef963")          \
        X(MESSAGE_AUTHORIZATION_DENIED, "6389047c5e414924a94efe356475f1cc") \
        X(MESSAGE_AUTHORIZATION_ROOT, "093da434ce0d42dcae796eafe55690ec")   \
        X(MESSAGE_DOMAIN_ATTACHED, "c5b616ab585d4667ac8f74ed0a8a588c")      \
        X(MESSAGE_DOMAIN_DETACHED, "ca402d85885449ab85d5d7d918d126ec")      \
        X(MESSAGE_DOMAIN_DEFINED, "d7fe13d637cd4ddcbead71ea03c94f1f")       \
        X(MESSAGE_DOMAIN_UNDEFINED, "25c173909e374aa2aef0a9ee75469a20")     \
        X(MESSAGE_DOMAIN_STARTED, "efb23d570feb4463a00adc65ed590af8")       \
        X(MESSAGE_MIRROR_DROPPED, "d248eb1aa81d41bab4bf5b9a66daeeca")       \
        X(MESSAGE_DOMAIN_GONE, "d98c2ac27a5a44cdba03d8d1aadba4ac")          \
        X(MESSAGE_CONNECTION_LOST, "f22c8fddadbb46a18798a73d12f482e0")      \
        X(MESSAGE_CONNECTION_REGAINED, "5811cb3b33924d09a0d700fde64e7a9a")  \
        X(MESSAGE_RECOVERED, "05be954abba0493981fb6bd3ce92730a")            \
        X(MESSAGE_RECORD_SET_ASIDE, "ba54449ef50649d9a46d48e70ec1a6ab")     \
        X(MESSAGE_QEMU_LATE, "b25ce30c46a84670bd36b63f1776a5f6")
