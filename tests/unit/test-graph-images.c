/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the block graph tells of images and of the jobs on them. */
#include "graph/graph.h"
#include "picture.h"

/* Each job has nodes of its own, and one node may have two jobs. */
static void two_jobs(void)
{
        Picture picture = three_layers;

        picture.edges[6] = (PictureEdge){ "job:one", "main node", "top" };
        picture.edges[7] = (PictureEdge){ "job:one", "target", "#block112" };
        picture.edges[8] = (PictureEdge){ "job:two", "main node", "#block112" };
        picture.edges[9] = (PictureEdge){ "job:two", "target", "#block381" };
        picture.edges[10] = (PictureEdge){ "export:one", "base", "top" };
        picture.edges[11] = (PictureEdge){ "job:two", "base", "nobody" };
        g_autoptr(Graph) graph = picture_read(&picture);

        g_assert_cmpstr(graph_job_node(graph, "one", "target")->name, ==, "#block112");
        g_assert_cmpstr(graph_job_node(graph, "two", "main node")->name, ==, "#block112");
        g_assert_cmpstr(graph_job_node(graph, "two", "target")->name, ==, "#block381");
        g_assert_null(graph_job_node(graph, "one", "main"));
        g_assert_null(graph_job_node(graph, "", "target"));
        g_assert_null(graph_job_node(graph, "top", "backing"));
        g_assert_null(graph_job_node(graph, "one", "base"));
        g_assert_null(graph_job_node(graph, "two", "base"));
}

/* ---- images ---- */

static Graph *read_replies(const Replies *replies, GHashTable *paths)
{
        g_autoptr(GError) error = NULL;
        Graph *graph = graph_new(replies->block, replies->nodes, replies->graph, paths, &error);

        g_assert_no_error(error);
        return graph;
}

/* QEMU knows a file that it was passed as a number; everybody else by its name. */
static void passed_descriptors(void)
{
        Picture picture = three_layers;
        g_autoptr(GHashTable) paths = g_hash_table_new(g_str_hash, g_str_equal);

        g_hash_table_insert(paths, (gpointer) "/dev/fdset/1", (gpointer) "/images/passed.qcow2");
        g_hash_table_insert(paths, (gpointer) "/images/base.qcow2", NULL);
        picture.nodes[0].file = picture.nodes[1].file = "/dev/fdset/1";
        picture.nodes[3].file = "/dev/fdset/12";
        g_autoptr(Replies) replies = replies_new(&picture);
        g_autoptr(Graph) graph = read_replies(replies, paths);
        g_autoptr(Graph) without = read_replies(replies, NULL);

        g_assert_cmpstr(graph_node(graph, "top-file")->file, ==, "/dev/fdset/1");
        g_assert_cmpstr(graph_node(graph, "top-file")->path, ==, "/images/passed.qcow2");
        g_assert_cmpstr(graph_source(graph_node(graph, "top")), ==, "/images/passed.qcow2");
        g_assert_cmpstr(graph_source(graph_node(graph, "#block112")), ==, "/dev/fdset/12");
        g_assert_cmpstr(graph_source(graph_node(graph, "#block381")), ==, "/images/base.qcow2");
        g_assert_cmpstr(graph_source(graph_node(without, "top")), ==, "/dev/fdset/1");
        g_assert_true(graph_node(without, "top-file")->path == graph_node(without, "top-file")->file);
}

static void image_details(void)
{
        static const struct {
                const char *member, *value;
                guint64 cluster_size;
                gboolean extended_l2;
        } cases[] = {
                { "cluster-size", "2097152", 2097152, FALSE },
                { "cluster-size", NULL, 0, FALSE },
                { "cluster-size", "\"x\"", 0, FALSE },
                { "format-specific", "{\"type\": \"qcow2\", \"data\": {\"extended-l2\": true}}", 65536,
                  TRUE },
                { "format-specific", "{\"type\": \"qcow2\", \"data\": {\"extended-l2\": false}}", 65536,
                  FALSE },
                { "format-specific", "{\"type\": \"qcow2\", \"extended-l2\": true, \"data\": {}}", 65536,
                  FALSE },
                { "format-specific", "{\"data\": {\"extended-l2\": 1}}", 65536, FALSE },
                { "format-specific", "[]", 65536, FALSE },
        };

        for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
                g_autoptr(Replies) replies = replies_new(&three_layers);
                JsonObject *node = json_array_get_object_element(json_node_get_array(replies->nodes), 0);
                JsonObject *image = json_object_get_object_member(node, "image");
                g_autoptr(Graph) graph = NULL;

                if (cases[i].value)
                        json_object_set_member(image, cases[i].member, parse_json(cases[i].value));
                else
                        json_object_remove_member(image, cases[i].member);
                graph = read_replies(replies, NULL);
                g_test_message("%s: %s", cases[i].member, cases[i].value ? cases[i].value : "(missing)");
                g_assert_cmpuint(graph_node(graph, "top")->cluster_size, ==, cases[i].cluster_size);
                g_assert_cmpint(graph_node(graph, "top")->extended_l2, ==, cases[i].extended_l2);
                g_assert_cmpuint(graph_node(graph, "#block112")->cluster_size, ==, 65536);
                g_assert_false(graph_node(graph, "#block112")->extended_l2);
        }
}

static void backing_details(void)
{
        g_autoptr(Graph) graph = picture_read(&three_layers);
        const GraphNode *top = graph_node(graph, "top"), *base = graph_node(graph, "#block381");

        g_assert_cmpstr(top->backing, ==, "mid.qcow2");
        g_assert_cmpstr(top->full_backing, ==, "/images/mid.qcow2");
        g_assert_cmpstr(top->backing_format, ==, "qcow2");
        g_assert_cmpstr(base->backing, ==, "");
        g_assert_cmpstr(base->full_backing, ==, "");
        g_assert_cmpstr(base->backing_format, ==, "");
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/graph/jobs", two_jobs);
        g_test_add_func("/graph/images/descriptors", passed_descriptors);
        g_test_add_func("/graph/images/details", image_details);
        g_test_add_func("/graph/images/backing", backing_details);
        return g_test_run();
}
