/** Generation in graphs: the same tokens as kernel by kernel. */

import type { CacheScheme } from '@lowbit/core'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { kivi } from '@lowbit/kvcache'
import { generate, loadDecoder } from '@lowbit/model'
import { demoFolder } from '@lowbit/testing'
import { describe, expect, it } from 'vitest'
import { cuda } from '../src/index.ts'

/** Tokens of the demo behind a prompt of some, and what was in graphs. */
async function continued(
  library: string | undefined,
  graphs: boolean,
  length: number,
  cache?: CacheScheme,
) {
  const kernels = await cuda({ library, graphs })
  const checkpoint = await openFolder(nodeFolder(demoFolder()))
  const decoder = await loadDecoder(checkpoint, kernels)
  await checkpoint.close()
  const prompt = Array.from({ length }, (_, i) => (i * 37) % 2048)
  const { tokens } = await generate(decoder, prompt, { maxTokens: 7, cache })
  const counts = { ...kernels.graphs }
  decoder.dispose()
  expect(kernels.bytes).toBe(0)
  kernels.dispose()
  return { tokens, counts }
}

/** On the GPU of this library: the system's by default. */
export function describeGraphs(library?: string): void {
  describe('generation in graphs', () => {
    it('the same tokens, and few kernels of a step are set anew', async () => {
      const [inGraphs, oneByOne] = [
        await continued(library, true, 3),
        await continued(library, false, 3),
      ]
      expect(inGraphs.tokens).toEqual(oneByOne.tokens)
      // The prompt, the two tokens that are recorded, and then four.
      expect(inGraphs.counts.launched).toBe(4)
      const { kernels, changed } = inGraphs.counts
      expect(changed).toBeLessThan(kernels / 4)
      expect(oneByOne.counts.launched).toBe(0)
    })

    it('a cache that begins to code its tokens in between', async () => {
      const cache = kivi({ bits: 2, window: 2 })
      const [inGraphs, oneByOne] = [
        await continued(library, true, 30, cache),
        await continued(library, false, 30, cache),
      ]
      expect(inGraphs.tokens).toEqual(oneByOne.tokens)
      expect(inGraphs.counts.launched).toBeGreaterThan(0)
    })
  })
}
