import type { CacheScheme } from '@lowbit/core'
import { LowbitError } from '@lowbit/core'

/** Keys and values as they are, in f32: the scheme that every other one is measured against. */
export function fullCache(): CacheScheme {
  return {
    kind: 'cache',
    name: 'full',
    options: {},
    create(kernels, { layers, keyValueHeads, headSize, capacity }) {
      const width = keyValueHeads * headSize
      const stores = Array.from({ length: layers }, () => ({
        keys: kernels.tensor(capacity, width),
        values: kernels.tensor(capacity, width),
      }))
      let length = 0
      return {
        get length() {
          return length
        },
        bytes: layers * capacity * width * 2 * 4,
        append(layer, keys, values) {
          if (length + keys.rows > capacity) {
            throw new LowbitError(
              'cache-full',
              `the cache holds ${capacity} tokens, ${length + keys.rows} are needed`,
              { option: 'context' },
            )
          }
          const store = stores[layer]
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
        dispose() {
          for (const { keys, values } of stores) kernels.free(keys, values)
        },
      }
    },
  }
}
