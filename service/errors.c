/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "errors.h"

#include "base/error.h"
#include "service.h"

char *error_bus_name(const GError *error)
{
        return g_strconcat(ERROR_PREFIX, bj_error_name(error), NULL);
}

char *error_bus_name_of_code(int code)
{
        const GError error = { .domain = BJ_ERROR, .code = code };

        return code < 0 ? g_strdup("") : error_bus_name(&error);
}
