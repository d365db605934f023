/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/error.h"

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

int bj_error_of_qemu(const char *text)
{
        static const struct {
                const char *words;
                int code;
        } table[] = {
                { "Failed to get \"write\" lock", BJ_ERROR_IMAGE_IN_USE },
                { "Failed to get shared \"write\" lock", BJ_ERROR_IMAGE_IN_USE },
                { "Failed to get \"resize\" lock", BJ_ERROR_IMAGE_IN_USE },
                { "No space left on device", BJ_ERROR_NO_SPACE },
        };

        for (guint i = 0; text && i < G_N_ELEMENTS(table); i++)
                if (strstr(text, table[i].words))
                        return table[i].code;
        return BJ_ERROR_QEMU;
}
