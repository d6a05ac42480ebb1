import java.util.ArrayDeque;
import java.util.HashMap;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * A keyed mutex for threads: one mutex for each key, made when a key is first asked for and gone when nobody uses it.
 * Not re-entrant. The clauses (KM-...) are those of specs/contract.md.
 *
 * <p>Cancel against grant (KM-RACE): an interrupt passes the grant on and throws; a timeout that meets a grant keeps it.
 */
public final class KeyedMutex<K> {
    /** Unlock of a key that has no holder, or of a grant that has ended (KM-UNHELD, KM-TOKEN). Nothing has changed. */
    public static final class UnheldKeyException extends IllegalMonitorStateException {
        private static final long serialVersionUID = 1;

        UnheldKeyException(String message) {
            super(message);
        }
    }

    /** One grant of one key. It can be ended from any thread. */
    public final class Lease implements AutoCloseable {
        private final K key;
        private final Condition turn = guard.newCondition();
        private boolean granted;

        private Lease(K key) {
            this.key = key;
        }

        /** Ends this grant and no other (KM-TOKEN). Throws {@link UnheldKeyException} where it has ended. */
        public void release() {
            guard.lock();
            try {
                if (!end(null)) {
                    if (log != null) {
                        log.unheld(key, true);
                    }
                    throw new UnheldKeyException("this grant of " + key + " has ended");
                }
            } finally {
                guard.unlock();
            }
        }

        /** Ends this grant, if somebody else has not ended it by {@link KeyedMutex#unlock}. */
        @Override
        public void close() {
            guard.lock();
            try {
                end(null);
            } finally {
                guard.unlock();
            }
        }

        /** why: of a call that gives its grant back; null: a release. */
        private boolean end(String why) {
            Queue<Lease> queue = queues.get(key);
            if (queue == null || queue.peek() != this) {
                return false;
            }
            handOn(key, queue, why);
            return true;
        }

        /** After a wait that was given up: a grant goes on, or else the place in the queue is left. */
        private void leave(String why) {
            if (granted) {
                // By the lease, not by the key: unlock(key) may have ended this grant, and another's begun.
                end(why);
            } else {
                // It stands behind a holder, so the queue is not empty after it.
                queues.get(key).remove(this);
                if (log != null) {
                    log.leaves(key, this, false, why);
                }
            }
        }
    }

    private final ReentrantLock guard = new ReentrantLock();
    /** The head of a queue holds, the others wait, oldest first. No queue is empty while the guard is free. */
    private final Map<K, Queue<Lease>> queues = new HashMap<>();
    private final StepLog<K> log;

    public KeyedMutex() {
        log = null;
    }

    /** One whose steps are written by {@code log}, which is nobody else's. */
    public KeyedMutex(StepLog<K> log) {
        this.log = log;
        log.attach(queues::get);
    }

    /** Waits until this request holds {@code key}, in the order of the requests (KM-FIFO), interrupted or not. */
    public Lease lock(K key) {
        Lease request = new Lease(key);
        guard.lock();
        try {
            enter(request);
            while (!request.granted) {
                request.turn.awaitUninterruptibly();
            }
            return request;
        } finally {
            guard.unlock();
        }
    }

    /**
     * The same, until the thread is interrupted. An interrupt that stands before the call throws too, also at a free key,
     * as in {@link ReentrantLock#lockInterruptibly}. A call that throws holds nothing and has left no trace.
     */
    public Lease lockInterruptibly(K key) throws InterruptedException {
        Lease request = new Lease(key);
        guard.lockInterruptibly();
        try {
            enter(request);
            try {
                while (!request.granted) {
                    request.turn.await();
                }
                if (Thread.interrupted()) {
                    throw new InterruptedException();
                }
            } catch (InterruptedException interrupt) {
                request.leave("interrupted");
                throw interrupt;
            }
            return request;
        } finally {
            guard.unlock();
        }
    }

    /** Takes a free key. Returns null at a held one, at once and without a trace (KM-EXPIRED). */
    public Lease tryLock(K key) {
        Lease request = new Lease(key);
        guard.lock();
        try {
            if (queues.containsKey(key)) {
                if (log != null) {
                    log.refused(key);
                }
                return null;
            }
            enter(request);
            return request;
        } finally {
            guard.unlock();
        }
    }

    /** Waits for no longer than {@code time}. Returns null after it; throws IllegalArgumentException for less than 0. */
    public Lease tryLock(K key, long time, TimeUnit unit) throws InterruptedException {
        if (time < 0) {
            throw new IllegalArgumentException("a negative timeout: " + time);
        }
        long nanos = unit.toNanos(time);
        Lease request = new Lease(key);
        guard.lockInterruptibly();
        try {
            enter(request);
            try {
                while (!request.granted && nanos > 0) {
                    nanos = request.turn.awaitNanos(nanos);
                }
                if (Thread.interrupted()) {
                    throw new InterruptedException();
                }
            } catch (InterruptedException interrupt) {
                request.leave("interrupted");
                throw interrupt;
            }
            if (!request.granted) {
                request.leave("timeout");
                return null;
            }
            return request;
        } finally {
            guard.unlock();
        }
    }

    /** Ends the grant of whoever holds {@code key}. Throws {@link UnheldKeyException}. */
    public void unlock(K key) {
        guard.lock();
        try {
            Queue<Lease> queue = queues.get(key);
            if (queue == null) {
                if (log != null) {
                    log.unheld(key, false);
                }
                throw new UnheldKeyException("unlock of " + key + ", which nobody holds");
            }
            handOn(key, queue, null);
        } finally {
            guard.unlock();
        }
    }

    /** The references of each key in use: its holder and its waiters. */
    public Map<K, Integer> references() {
        guard.lock();
        try {
            Map<K, Integer> found = new HashMap<>();
            queues.forEach((key, queue) -> found.put(key, queue.size()));
            return found;
        } finally {
            guard.unlock();
        }
    }

    private void enter(Lease request) {
        Queue<Lease> queue = queues.get(request.key);
        if (queue == null) {
            // The queue goes into the table with its holder in it: an error in between leaves no empty one.
            queue = new ArrayDeque<>();
            queue.add(request);
            queues.put(request.key, queue);
            request.granted = true;
        } else {
            queue.add(request);
        }
        if (log != null) {
            log.asks(request.key, request);
        }
    }

    private void handOn(K key, Queue<Lease> queue, String why) {
        Lease holder = queue.remove();
        Lease next = queue.peek();
        if (next == null) {
            queues.remove(key);
        } else {
            next.granted = true;
            next.turn.signal();
        }
        if (log != null) {
            log.leaves(key, holder, true, why);
        }
    }
}
