/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* Every error that a caller can meet. The engine uses the codes, the bus face the names; the meaning of each
 * stands in the interface XML. */
#define BJ_ERRORS(X)                                    \
        X(BJ_ERROR_INVALID_ARGUMENT, "InvalidArgument") \
        X(BJ_ERROR_NO_SUCH_DOMAIN, "NoSuchDomain")      \
        X(BJ_ERROR_NO_SUCH_DISK, "NoSuchDisk")          \
        X(BJ_ERROR_NO_SUCH_JOB, "NoSuchJob")            \
        X(BJ_ERROR_NO_SUCH_IMAGE, "NoSuchImage")        \
        X(BJ_ERROR_AMBIGUOUS, "Ambiguous")              \
        X(BJ_ERROR_EXISTS, "Exists")                    \
        X(BJ_ERROR_INVALID_STATE, "InvalidState")       \
        X(BJ_ERROR_JOB_ACTIVE, "JobActive")             \
        X(BJ_ERROR_NOT_READY, "NotReady")               \
        X(BJ_ERROR_NOT_ACTIVE, "NotActive")             \
        X(BJ_ERROR_IMAGE_IN_USE, "ImageInUse")          \
        X(BJ_ERROR_NOT_SUPPORTED, "NotSupported")       \
        X(BJ_ERROR_NO_SPACE, "NoSpace")                 \
        X(BJ_ERROR_DISCONNECTED, "Disconnected")        \
        X(BJ_ERROR_TIMEOUT, "Timeout")                  \
        X(BJ_ERROR_QEMU, "QemuError")                   \
        X(BJ_ERROR_LIMIT_EXCEEDED, "LimitExceeded")     \
        X(BJ_ERROR_FAILED, "Failed")

typedef enum {
#define X(code, name) code,
        BJ_ERRORS(X)
#undef X
                BJ_N_ERRORS
} BjErrorCode;

#define BJ_ERROR bj_error_quark()
GQuark bj_error_quark(void);

/* The name on the bus, without its prefix. Errors of other domains are "Failed". */
const char *bj_error_name(const GError *error);

/* Sets InvalidArgument with that message, and answers FALSE. */
gboolean bj_refuse(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Sets what errno stands for, "cannot open 'name': …", and answers FALSE: NoSpace, LimitExceeded where there
 * is no descriptor left, else Failed. */
gboolean bj_fail_errno(GError **error, const char *what, const char *name);

/* The code that QEMU's own text stands for: ImageInUse for a lock that somebody else holds, NoSpace, else
 * QemuError. QEMU has no codes for these; the texts are those of 7.2 to 11.1. */
int bj_error_of_qemu(const char *text);
