/* SPDX-License-Identifier: MIT */
/* The radix tree of topics.h.
 *
 * Always, but where memory was short: a node that is no string's end has two children at least, so
 * there are fewer than twice as many nodes as strings.  A node is one block with its edge's bytes;
 * its children are another, sorted by first byte, which is kept beside the pointers so that a
 * search does not touch the children. */
#include "protocols/sp/topics.h"

#include <assert.h>
#include <string.h>

#include <spoke/error.h>

#include "runtime/memory/pool.h"

#define ROOM_FIRST 2u

struct spk_topic_node {
    struct spk_topic_node **children; /* `room` of these, then as many first bytes */
    uint16_t count, room;
    bool ends; /* a string of the set ends here */
    size_t size;
    uint8_t label[]; /* of the edge that leads here; the root's is empty */
};

/* `label` may be NULL: to be filled in. */
static struct spk_topic_node *
new_node(const uint8_t *label, size_t size)
{
    struct spk_topic_node *node = spk_zalloc(sizeof *node + size);

    if (node == NULL)
        return NULL;
    node->size = size;
    if (label != NULL)
        memcpy(node->label, label, size);
    return node;
}

/* Free one node, not those below it. */
static void
free_node(struct spk_topic_node *node)
{
    spk_free(node->children);
    spk_free(node);
}

/* ---- children ---- */

static uint8_t *
first_bytes(const struct spk_topic_node *node)
{
    return (uint8_t *)(node->children + node->room);
}

/* Where the child that begins with `byte` is, or would be. */
static unsigned
place_of(const struct spk_topic_node *node, uint8_t byte)
{
    const uint8_t *bytes = first_bytes(node);
    unsigned low = 0, high = node->count;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (bytes[middle] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Where the pointer to the child that begins with `byte` is; NULL if there is none. */
static struct spk_topic_node **
find_child(const struct spk_topic_node *node, uint8_t byte)
{
    unsigned at = node->count > 0 ? place_of(node, byte) : 0;

    return at < node->count && first_bytes(node)[at] == byte ? &node->children[at] : NULL;
}

static int
set_room(struct spk_topic_node *node, unsigned room)
{
    struct spk_topic_node **children = spk_zalloc(room * (sizeof *children + 1));

    if (children == NULL)
        return SPOKE_ENOMEM;
    if (node->children != NULL) {
        memcpy(children, node->children, node->count * sizeof *children);
        memcpy(children + room, first_bytes(node), node->count);
    }
    spk_free(node->children);
    node->children = children;
    node->room = (uint16_t)room;
    return 0;
}

static int
make_room(struct spk_topic_node *node)
{
    if (node->count < node->room)
        return 0;
    return set_room(node, node->room == 0 ? ROOM_FIRST : node->room * 2u);
}

/* There is room. */
static void
add_child(struct spk_topic_node *node, struct spk_topic_node *child)
{
    unsigned at = place_of(node, child->label[0]), behind = node->count - at;
    uint8_t *bytes = first_bytes(node);

    if (node->children == NULL) /* the caller has made room */
        return;
    assert(node->count < node->room);
    memmove(node->children + at + 1, node->children + at, behind * sizeof *node->children);
    memmove(bytes + at + 1, bytes + at, behind);
    node->children[at] = child;
    bytes[at] = child->label[0];
    node->count++;
}

static void
remove_child(struct spk_topic_node *node, struct spk_topic_node **child)
{
    unsigned at = (unsigned)(child - node->children), behind = node->count - at - 1;
    uint8_t *bytes = first_bytes(node);

    memmove(child, child + 1, behind * sizeof *child);
    memmove(bytes + at, bytes + at + 1, behind);
    node->count--;
    if (node->count == 0) {
        spk_free(node->children);
        node->children = NULL;
        node->room = 0;
    } else if (node->count <= node->room / 4u) {
        (void)set_room(node, node->room / 2u); /* without memory it stays larger than it need be */
    }
}

/* ---- the way down ---- */

static size_t
common_size(const struct spk_topic_node *node, const uint8_t *bytes, size_t size)
{
    size_t most = node->size < size ? node->size : size, n = 0;

    while (n < most && node->label[n] == bytes[n])
        n++;
    return n;
}

bool
spk_topics_match(const struct spk_topics *t, const void *data, size_t size)
{
    const struct spk_topic_node *node = t->root;
    const uint8_t *bytes = data;

    if (node == NULL)
        return false;
    while (!node->ends) {
        struct spk_topic_node **child = size > 0 ? find_child(node, bytes[0]) : NULL;

        if (child == NULL || (*child)->size > size ||
            memcmp((*child)->label, bytes, (*child)->size) != 0)
            return false;
        node = *child;
        bytes += node->size;
        size -= node->size;
    }
    return true;
}

/* ---- adding ---- */

/* Put a node into the edge to *at, behind its first `size` bytes.  It has room for another child.
 */
static int
split(struct spk_topic_node **at, size_t size)
{
    struct spk_topic_node *below = *at, *upper = new_node(below->label, size);
    struct spk_topic_node *lower = new_node(below->label + size, below->size - size);

    if (upper == NULL || lower == NULL || set_room(upper, ROOM_FIRST) != 0) {
        spk_free(lower);
        if (upper != NULL)
            free_node(upper);
        return SPOKE_ENOMEM;
    }
    lower->children = below->children;
    lower->count = below->count;
    lower->room = below->room;
    lower->ends = below->ends;
    add_child(upper, lower);
    spk_free(below);
    *at = upper;
    return 0;
}

static int
add_leaf(struct spk_topic_node *node, const uint8_t *bytes, size_t size)
{
    struct spk_topic_node *leaf;

    if (make_room(node) != 0 || (leaf = new_node(bytes, size)) == NULL)
        return SPOKE_ENOMEM;
    leaf->ends = true;
    add_child(node, leaf);
    return 0;
}

static int
add_below(struct spk_topics *t, const uint8_t *bytes, size_t size)
{
    struct spk_topic_node *node = t->root, **child;
    int rc;

    while (size > 0) {
        if ((child = find_child(node, bytes[0])) == NULL) {
            rc = add_leaf(node, bytes, size);
            t->count += rc == 0;
            return rc;
        }
        size_t common = common_size(*child, bytes, size);
        if (common < (*child)->size && (rc = split(child, common)) != 0)
            return rc;
        node = *child;
        bytes += common;
        size -= common;
    }
    t->count += !node->ends;
    node->ends = true;
    return 0;
}

/* A node that ends no string and has one child becomes one with it. */
static void
join_if_needless(struct spk_topic_node **at)
{
    struct spk_topic_node *upper = *at, *lower, *both;

    if (upper->ends || upper->count != 1)
        return;
    lower = upper->children[0];
    if ((both = new_node(NULL, upper->size + lower->size)) == NULL)
        return; /* it serves as well as it is */
    memcpy(both->label, upper->label, upper->size);
    memcpy(both->label + upper->size, lower->label, lower->size);
    both->children = lower->children;
    both->count = lower->count;
    both->room = lower->room;
    both->ends = lower->ends;
    spk_free(lower);
    free_node(upper);
    *at = both;
}

/* What a failure left behind: an empty root, or a node in an edge that needs none. */
static void
tidy(struct spk_topics *t, const uint8_t *bytes, size_t size)
{
    struct spk_topic_node **at = &t->root, **child;

    while (size > 0 && (child = find_child(*at, bytes[0])) != NULL &&
           common_size(*child, bytes, size) == (*child)->size) {
        bytes += (*child)->size;
        size -= (*child)->size;
        at = child;
    }
    if (t->count == 0)
        spk_topics_fini(t);
    else if (at != &t->root)
        join_if_needless(at);
}

int
spk_topics_add(struct spk_topics *t, const void *bytes, size_t size)
{
    if (t->root == NULL && (t->root = new_node(NULL, 0)) == NULL)
        return SPOKE_ENOMEM;
    int rc = add_below(t, bytes, size);
    if (rc != 0)
        tidy(t, bytes, size);
    return rc;
}

/* ---- removing ---- */

/* Free a way down without forks. */
static void
free_chain(struct spk_topic_node *node)
{
    while (node != NULL) {
        struct spk_topic_node *below = node->count > 0 ? node->children[0] : NULL;

        free_node(node);
        node = below;
    }
}

int
spk_topics_remove(struct spk_topics *t, const void *data, size_t size)
{
    struct spk_topic_node **at = &t->root, **child;
    struct spk_topic_node **stays = at, **goes = NULL; /* the last that is needed without it */
    const uint8_t *bytes = data;

    while (size > 0) {
        if (*at == NULL || (child = find_child(*at, bytes[0])) == NULL ||
            common_size(*child, bytes, size) < (*child)->size)
            return SPOKE_ENOENT;
        if (at == &t->root || (*at)->ends || (*at)->count > 1) {
            stays = at;
            goes = child;
        }
        bytes += (*child)->size;
        size -= (*child)->size;
        at = child;
    }
    if (*at == NULL || !(*at)->ends)
        return SPOKE_ENOENT;
    (*at)->ends = false;
    if (--t->count == 0) {
        spk_topics_fini(t);
        return 0;
    }
    if ((*at)->count == 0 && goes != NULL) {
        struct spk_topic_node *chain = *goes;

        remove_child(*stays, goes);
        free_chain(chain);
        at = stays;
    }
    if (at != &t->root)
        join_if_needless(at);
    return 0;
}

/* Without recursion, which would go as deep as the longest string: on the way down each node keeps
 * its parent in the place of the child. */
void
spk_topics_fini(struct spk_topics *t)
{
    struct spk_topic_node *node = t->root, *parent = NULL;

    while (node != NULL) {
        if (node->count > 0) {
            struct spk_topic_node *child = node->children[node->count - 1];

            node->children[node->count - 1] = parent;
            parent = node;
            node = child;
            continue;
        }
        free_node(node);
        node = parent;
        if (node != NULL)
            parent = node->children[--node->count];
    }
    *t = (struct spk_topics){.root = NULL};
}
