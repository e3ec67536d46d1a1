/* Built for 32 bits without _FILE_OFFSET_BITS=64: lists a directory twice, the second time from positions that it noted the first
 * time, and stats everything. Prints the number of entries. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST 10000

static struct {
    char name[256];
    long after;
    unsigned long inode;
} entries[MOST];

static void fail(const char *what, const char *name)
{
    fprintf(stderr, "%s %s: %s\n", what, name, strerror(errno));
    exit(1);
}

static void wrong(const char *what, const char *name)
{
    fprintf(stderr, "%s: %s\n", name, what);
    exit(1);
}

int main(int argc, char **argv)
{
    struct dirent *entry;
    struct stat attributes;
    int count = 0, at;
    DIR *directory;

    _Static_assert(sizeof(off_t) == 4 && sizeof(ino_t) == 4, "built with support for large files");
    if (argc != 2 || chdir(argv[1]) != 0)
        fail("chdir", argv[1]);
    if (!(directory = opendir(".")))
        fail("opendir", ".");
    for (errno = 0; (entry = readdir(directory)); errno = 0) {
        if (count == MOST)
            wrong("too many entries", argv[1]);
        strcpy(entries[count].name, entry->d_name);
        entries[count].inode = entry->d_ino;
        if ((entries[count++].after = telldir(directory)) == -1)
            fail("telldir after", entry->d_name);
    }
    if (errno)
        fail("readdir", argv[1]);
    for (at = 0; at < count; at++) {
        if (lstat(entries[at].name, &attributes) != 0)
            fail("lstat", entries[at].name);
        if (strcmp(entries[at].name, "..") != 0 && attributes.st_ino != entries[at].inode)
            wrong("another inode number in the listing", entries[at].name);
    }
    for (at = count - 1; at >= 0; at -= 97) {
        seekdir(directory, entries[at].after);
        errno = 0;
        entry = readdir(directory);
        if (errno)
            fail("readdir after", entries[at].name);
        if (at == count - 1 ? entry != NULL : !entry || strcmp(entry->d_name, entries[at + 1].name) != 0)
            wrong("reading does not go on after it", entries[at].name);
    }
    closedir(directory);
    printf("%d\n", count);
    return 0;
}
