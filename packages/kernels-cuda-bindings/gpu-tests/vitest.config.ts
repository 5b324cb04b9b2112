import { defineConfig } from 'vitest/config'

/** One file at a time: an illegal access ends the work of a whole process on its GPU. */
export default defineConfig({
  test: { dir: import.meta.dirname, testTimeout: 300_000, maxWorkers: 1 },
})
