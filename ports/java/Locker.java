import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** What the adapter drives: the library, or one of the mistakes. */
interface Locker {
    /** Ends one grant. Throws {@link KeyedMutex.UnheldKeyException}. */
    interface Release {
        void release();
    }

    /** What stat has to say of a key. */
    record Counts(int references, int waiters) {}

    Release lock(String key) throws InterruptedException;

    /** Null: refused. */
    Release tryLock(String key);

    /** For no longer than so many milliseconds. Null: refused. */
    Release tryLock(String key, long milliseconds) throws InterruptedException;

    void unlock(String key);

    Map<String, Counts> counts();

    /** The library. */
    final class Sound implements Locker {
        private final KeyedMutex<String> mutex = new KeyedMutex<>();

        @Override
        public Release lock(String key) throws InterruptedException {
            return mutex.lockInterruptibly(key)::release;
        }

        @Override
        public Release tryLock(String key) {
            KeyedMutex<String>.Lease lease = mutex.tryLock(key);
            return lease == null ? null : lease::release;
        }

        @Override
        public Release tryLock(String key, long milliseconds) throws InterruptedException {
            KeyedMutex<String>.Lease lease = mutex.tryLock(key, milliseconds, TimeUnit.MILLISECONDS);
            return lease == null ? null : lease::release;
        }

        @Override
        public void unlock(String key) {
            mutex.unlock(key);
        }

        @Override
        public Map<String, Counts> counts() {
            Map<String, Counts> found = new HashMap<>();
            mutex.references().forEach((key, count) -> found.put(key, new Counts(count, count - 1)));
            return found;
        }
    }
}
