/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/error.h"

#include <errno.h>
#include <string.h>

G_DEFINE_QUARK(blockjobd - error - quark, bj_error)

static const char *const names[BJ_N_ERRORS] = {
#define X(code, name) [code] = name,
        BJ_ERRORS(X)
#undef X
};

const char *bj_error_name(const GError *error)
{
        if (error->domain == BJ_ERROR && error->code >= 0 && error->code < BJ_N_ERRORS)
                return names[error->code];
        return names[BJ_ERROR_FAILED];
}

gboolean bj_refuse(GError **error, const char *format, ...)
{
        g_autofree char *message = NULL;
        va_list list;

        va_start(list, format);
        message = g_strdup_vprintf(format, list);
        va_end(list);
        g_set_error_literal(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, message);
        return FALSE;
}

static int code_of_errno(int code)
{
        switch (code) {
        case ENOSPC:
        case EDQUOT:
                return BJ_ERROR_NO_SPACE;
        case EMFILE:
        case ENFILE:
                return BJ_ERROR_LIMIT_EXCEEDED;
        default:
                return BJ_ERROR_FAILED;
        }
}

gboolean bj_fail_errno(GError **error, const char *what, const char *name)
{
        int code = errno;

        g_set_error(error, BJ_ERROR, code_of_errno(code), "cannot %s '%s': %s", what, name,
                    g_strerror(code));
        return FALSE;
}

int bj_error_of_qemu(const char *text)
{
        if (text && strstr(text, "Failed to get ") && strstr(text, " lock"))
                return BJ_ERROR_IMAGE_IN_USE;
        return text && strstr(text, g_strerror(ENOSPC)) ? BJ_ERROR_NO_SPACE : BJ_ERROR_QEMU;
}
