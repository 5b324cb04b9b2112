/** The residual stream before the first block. */

import type { Tensor } from '@lowbit/core'
import { loadEmbedding, type Opened } from '@lowbit/model'

export async function embedWindows(
  opened: Opened,
  windows: readonly (readonly number[])[],
): Promise<Tensor[]> {
  const { kernels, config } = opened
  // Let go again at once: it is large, and blocks don't need it.
  const embedding = await loadEmbedding(opened)
  const streams = windows.map((window) => {
    const x = kernels.tensor(window.length, config.hidden)
    kernels.gather(x, embedding, Uint32Array.from(window))
    return x
  })
  kernels.unload(embedding)
  return streams
}
