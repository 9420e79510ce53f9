/* A team: threads that compute the same rows together, each its part of every phase.
 *
 * A large model has one team of all threads, so that its weights, which are more than any cache
 * holds, are read once for all rows. A small one has a team for each thread, and nobody waits.
 */
#include <pthread.h>

/* Where the members of a team wait for each other. */
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t all_here;
    int32_t here;
    uint32_t round;
} Meeting;

#define NEW_MEETING {.lock = PTHREAD_MUTEX_INITIALIZER, .all_here = PTHREAD_COND_INITIALIZER}

/* A phase takes some ten microseconds, so a member looks this often before it sleeps: to sleep and
 * to be woken takes longer than that. Where others use the processors it must sleep, or it would
 * take the time that the last member needs. */
enum { LOOKS = 2000 };

static inline void look_again(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Wait until all `size` members are here. What each wrote before, all can read afterwards. */
static void meet(Meeting *meeting, int size) {
    if (size == 1) return;
    const uint32_t round = __atomic_load_n(&meeting->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&meeting->here, 1, __ATOMIC_ACQ_REL) == size) {
        meeting->here = 0;
        pthread_mutex_lock(&meeting->lock);
        __atomic_store_n(&meeting->round, round + 1, __ATOMIC_RELEASE);
        pthread_cond_broadcast(&meeting->all_here);
        pthread_mutex_unlock(&meeting->lock);
        return;
    }
    for (int looks = 0; looks < LOOKS; looks++) {
        if (__atomic_load_n(&meeting->round, __ATOMIC_ACQUIRE) != round) return;
        look_again();
    }
    pthread_mutex_lock(&meeting->lock);
    while (__atomic_load_n(&meeting->round, __ATOMIC_ACQUIRE) == round)
        pthread_cond_wait(&meeting->all_here, &meeting->lock);
    pthread_mutex_unlock(&meeting->lock);
}

/* From `first` up to and not with `last`. */
typedef struct {
    int32_t first, last;
} Part;

/* The part of `count` things that belongs to member `index` of `size`. */
static inline Part part(int64_t count, int index, int size) {
    return (Part){count * index / size, count * (index + 1) / size};
}
