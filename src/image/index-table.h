/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "image/index-image.h"

/* Who names whom, by file and by name. Locked by its owner. */
typedef struct {
        GTree *by_file, *by_name;
} UseTable;

void use_table_init(UseTable *table);
void use_table_clear(UseTable *table);
void use_table_add(UseTable *table, IndexedImage *image);
void use_table_remove(UseTable *table, const IndexedImage *image);

/* ImageUser, as image_index_users() has them. */
GPtrArray *use_table_find(const UseTable *table, const ImageId *image, gboolean all);
