import { type CacheScheme, LowbitError, resized, roomFor, type Tensor } from '@lowbit/core'

/** Keys and values as they are, in f32: the scheme that every other one is measured against. */
export function fullCache(): CacheScheme {
  return {
    kind: 'cache',
    name: 'full',
    options: {},
    size: ({ layers, keyValueHeads, headSize }, length) => ({
      bytes: length * layers * keyValueHeads * headSize * 2 * 4,
      tokens: length,
      codedNumbers: 0,
    }),
    create(kernels, { layers, keyValueHeads, headSize, capacity }) {
      const width = keyValueHeads * headSize
      const rows = roomFor(0, Math.min(1, capacity), capacity)
      const stores = Array.from({ length: layers }, () => ({
        keys: kernels.tensor(rows, width),
        values: kernels.tensor(rows, width),
      }))
      let length = 0

      function makeRoom(store: (typeof stores)[number], needed: number): void {
        if (needed > capacity) {
          throw new LowbitError(
            'cache-full',
            `the cache holds ${capacity} tokens, ${needed} are needed`,
            { option: 'context' },
          )
        }
        if (needed <= store.keys.rows) return
        const room = roomFor(store.keys.rows, needed, capacity)
        store.keys = resized(kernels, store.keys, length, room)
        store.values = resized(kernels, store.values, length, room)
      }

      return {
        get length() {
          return length
        },
        get bytes() {
          return stores.reduce((sum, { keys }) => sum + keys.rows * width * 2 * 4, 0)
        },
        get steady() {
          return Math.max(1, capacity - length)
        },
        append(layer, keys, values) {
          const store = stores[layer]
          makeRoom(store, length + keys.rows)
          kernels.copy(kernels.rows(store.keys, length, length + keys.rows), keys)
          kernels.copy(kernels.rows(store.values, length, length + values.rows), values)
        },
        attend(layer, out, q, shape) {
          const { keys, values } = stores[layer]
          kernels.attention(out, q, keys, values, { ...shape, start: length })
        },
        advance(tokens) {
          length += tokens
        },
        truncate(to) {
          length = Math.min(length, to)
        },
        layout: () => ({ length }),
        parts() {
          const found = new Map<string, Tensor>()
          for (const [layer, { keys, values }] of stores.entries()) {
            found.set(`${layer}.keys`, kernels.rows(keys, 0, length))
            found.set(`${layer}.values`, kernels.rows(values, 0, length))
          }
          return found
        },
        prepare(layout) {
          length = 0
          for (const store of stores) makeRoom(store, layout.length)
          length = layout.length
        },
        dispose() {
          for (const { keys, values } of stores) kernels.free(keys, values)
        },
      }
    },
  }
}
