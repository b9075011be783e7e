/* SPDX-License-Identifier: MIT */
/* Feeds a corpus to a fuzz target without libFuzzer: each file of the directories named, and each
 * of its beginnings.  Every input lies in a block of exactly its size, so that a sanitizer sees a
 * read past the end.  An empty corpus is a failure: a test that runs nothing has shown nothing. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_MAX_BYTES ((size_t)1 << 20)
#define PREFIXES_MAX    ((size_t)4096) /* of one file */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
run_exact(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);

    if (copy == NULL) {
        perror("replay");
        exit(2);
    }
    if (size > 0)
        memcpy(copy, data, size);
    (void)LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void
run_file(const char *path)
{
    static uint8_t bytes[INPUT_MAX_BYTES];
    FILE *file = fopen(path, "rb");

    if (file == NULL) {
        perror(path);
        exit(2);
    }
    size_t size = fread(bytes, 1, sizeof bytes, file);
    if (ferror(file) || !feof(file)) {
        fprintf(stderr, "replay: %s: cannot be read, or is larger than %zu bytes\n", path,
                sizeof bytes);
        exit(2);
    }
    fclose(file);
    for (size_t cut = 0; cut < size && cut < PREFIXES_MAX; cut++)
        run_exact(bytes, cut);
    run_exact(bytes, size);
}

static unsigned
run_directory(const char *path)
{
    DIR *directory = opendir(path);
    unsigned files = 0;

    if (directory == NULL) {
        perror(path);
        exit(2);
    }
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char name[4096];
        struct stat status;
        int length = snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (length < 0 || (size_t)length >= sizeof name)
            continue;
        if (stat(name, &status) == 0 && S_ISREG(status.st_mode)) {
            run_file(name);
            files++;
        }
    }
    closedir(directory);
    return files;
}

int
main(int argc, char **argv)
{
    unsigned files = 0;

    for (int i = 1; i < argc; i++)
        files += run_directory(argv[i]);
    if (files == 0) {
        fprintf(stderr, "replay: no input at all: name directories with a corpus\n");
        return 1;
    }
    printf("replay: %u files and all their beginnings\n", files);
    return 0;
}
