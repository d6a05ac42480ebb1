import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Lockers that are wrong in one way each, as they go wrong in Java. It is the usual shape, with a count beside a queue;
 * where a mistake is made, its name stands.
 */
final class Broken implements Locker {
    /** The clauses: any of them is a right name for the mistake, the first is the best. */
    enum Mistake {
        /** unlock takes the entry out of the map in its finally block, whoever waits in it. */
        REMOVES_IN_FINALLY("removes-in-finally", "KM-REF,KM-EXCL,KM-UNHELD"),
        /** The InterruptedException flies past the line that counts down. */
        THROWS_PAST_THE_COUNT("throws-past-the-count", "KM-REF,KM-CANCEL,KM-IDLE"),
        /** An interrupted waiter stays in the queue and is granted later. */
        STAYS_QUEUED("stays-queued", "KM-CANCEL,KM-REF,KM-LIVE,KM-RACE"),
        /** Throws with the grant in hand. */
        THROWS_WITH_THE_GRANT("throws-with-the-grant", "KM-RACE,KM-LIVE"),
        /** An ArrayDeque as a stack: add here, removeLast there. */
        REMOVES_LAST("removes-last", "KM-FIFO,KM-HANDOFF"),
        /** Frees the key and wakes the oldest, who has to win it. */
        NOT_FAIR("not-fair", "KM-HANDOFF,KM-FIFO"),
        /** Map.remove says null and nobody looks. */
        REMOVES_NULL("removes-null", "KM-UNHELD"),
        /** Semaphore.release does not ask who has acquired: one more permit, and room for two. */
        RELEASES_A_PERMIT("releases-a-permit", "KM-UNHELD,KM-EXCL,KM-IDLE,KM-REF"),
        /** computeIfAbsent, and nothing that removes. */
        COMPUTES_IF_ABSENT("computes-if-absent", "KM-IDLE"),
        /** Its patience is a number of seconds, and the caller gives milliseconds. */
        TAKES_SECONDS("takes-seconds", "KM-CANCEL,KM-EXPIRED"),
        /** A try counts before it looks, and returns false without counting down. */
        COUNTS_THE_TRY("counts-the-try", "KM-EXPIRED,KM-REF,KM-ATOMIC,KM-IDLE"),
        /** The lease's close unlocks the key, whoever holds it. */
        CLOSES_BY_KEY("closes-by-key", "KM-TOKEN");

        final String spelled;
        final String clauses;

        Mistake(String spelled, String clauses) {
            this.spelled = spelled;
            this.clauses = clauses;
        }
    }

    private static final class Entry {
        int references;
        int permits = 1;
        /** Who took the permit last; what a release by lease asks for. */
        Object holder;
        final Deque<Object> queue = new ArrayDeque<>();

        void take(Object ticket) {
            permits--;
            holder = ticket;
        }
    }

    private final Mistake mistake;
    private final ReentrantLock guard = new ReentrantLock();
    private final Condition told = guard.newCondition();
    private final Map<String, Entry> entries = new HashMap<>();

    /** mistake: null for none. Then it conforms: else one could be found for what is wrong with the locker itself. */
    Broken(Mistake mistake) {
        this.mistake = mistake;
    }

    @Override
    public Release lock(String key) throws InterruptedException {
        return lock(key, Long.MAX_VALUE);
    }

    @Override
    public Release tryLock(String key, long milliseconds) throws InterruptedException {
        TimeUnit unit = mistake == Mistake.TAKES_SECONDS ? TimeUnit.SECONDS : TimeUnit.MILLISECONDS;
        return lock(key, unit.toNanos(milliseconds));
    }

    private Release lock(String key, long patience) throws InterruptedException {
        Object ticket = new Object();
        guard.lockInterruptibly();
        try {
            Entry entry = request(key);
            if (entry.permits > 0) {
                entry.take(ticket);
                return () -> release(key, ticket);
            }
            entry.queue.add(ticket);
            try {
                if (!await(entry, ticket, patience)) {
                    leave(key, entry, ticket);
                    return null;
                }
            } catch (InterruptedException interrupt) {
                leave(key, entry, ticket);
                throw interrupt;
            }
            return () -> release(key, ticket);
        } finally {
            guard.unlock();
        }
    }

    @Override
    public Release tryLock(String key) {
        Object ticket = new Object();
        guard.lock();
        try {
            Entry entry = request(key);
            if (entry.permits > 0) {
                entry.take(ticket);
                return () -> release(key, ticket);
            }
            if (mistake != Mistake.COUNTS_THE_TRY) {
                entry.references--;
            }
            return null;
        } finally {
            guard.unlock();
        }
    }

    @Override
    public void unlock(String key) {
        guard.lock();
        try {
            Entry entry = entries.get(key);
            if (mistake == Mistake.RELEASES_A_PERMIT && (entry == null || entry.permits > 0)) {
                entries.computeIfAbsent(key, absent -> new Entry()).permits++;
            } else if (entry != null && entry.permits < 1) {
                handOn(key, entry);
            } else if (mistake != Mistake.REMOVES_NULL) {
                throw new KeyedMutex.UnheldKeyException("not held");
            }
        } finally {
            guard.unlock();
        }
    }

    @Override
    public Map<String, Counts> counts() {
        guard.lock();
        try {
            Map<String, Counts> found = new HashMap<>();
            entries.forEach((key, entry) -> found.put(key, new Counts(entry.references, entry.queue.size())));
            return found;
        } finally {
            guard.unlock();
        }
    }

    private Entry request(String key) {
        Entry entry = entries.computeIfAbsent(key, absent -> new Entry());
        entry.references++;
        return entry;
    }

    /** False: the time, in nanoseconds, is over, and there was no grant. */
    private boolean await(Entry entry, Object ticket, long patience) throws InterruptedException {
        long left = patience;
        while (true) {
            while (entry.queue.contains(ticket)) {
                if (left <= 0) {
                    return false;
                }
                left = told.awaitNanos(left);
            }
            if (mistake == Mistake.NOT_FAIR) {
                // Stands for a machine that is busy when it wakes; without it the mistake shows in few bursts only.
                told.await(1, TimeUnit.MILLISECONDS);
                if (entry.permits < 1) {
                    entry.queue.add(ticket);
                    continue;
                }
                entry.take(ticket);
            }
            if (Thread.interrupted()) {
                throw new InterruptedException();
            }
            return true;
        }
    }

    private void leave(String key, Entry entry, Object ticket) {
        if (entry.queue.contains(ticket)) {
            if (mistake != Mistake.STAYS_QUEUED) {
                entry.queue.remove(ticket);
                entry.references -= mistake == Mistake.THROWS_PAST_THE_COUNT ? 0 : 1;
            }
        } else if (entry.holder == ticket && mistake != Mistake.THROWS_WITH_THE_GRANT) {
            handOn(key, entry);
        } else if (mistake == Mistake.NOT_FAIR) {
            // It was woken and has not won: its wake-up goes on.
            entry.references--;
            entry.queue.poll();
            told.signalAll();
            if (entry.references == 0) {
                entries.remove(key);
            }
        }
    }

    private void release(String key, Object ticket) {
        guard.lock();
        try {
            Entry entry = entries.get(key);
            boolean held = entry != null && entry.permits < 1;
            if (!held || (entry.holder != ticket && mistake != Mistake.CLOSES_BY_KEY)) {
                throw new KeyedMutex.UnheldKeyException("not held");
            }
            handOn(key, entry);
        } finally {
            guard.unlock();
        }
    }

    private void handOn(String key, Entry entry) {
        entry.references--;
        entry.permits++;
        entry.holder = null;
        Object next = mistake == Mistake.REMOVES_LAST ? entry.queue.pollLast() : entry.queue.poll();
        if (next != null && mistake != Mistake.NOT_FAIR) {
            entry.take(next);
        }
        told.signalAll();
        boolean unused = entry.references == 0 || mistake == Mistake.REMOVES_IN_FINALLY;
        if (unused && mistake != Mistake.COMPUTES_IF_ABSENT) {
            entries.remove(key);
        }
    }
}
