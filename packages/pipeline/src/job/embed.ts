/** Where the residual streams begin. */

import type { Tensor } from '@lowbit/core'
import type { Opened } from '@lowbit/model'

/** The residual stream before the first block; the embedding is let go again. */
export async function embedWindows(
  { checkpoint, kernels, config }: Opened,
  windows: readonly (readonly number[])[],
): Promise<Tensor[]> {
  const embedding = kernels.load(await checkpoint.readMatrix(config.architecture.modules.embedding))
  const streams = windows.map((window) => {
    const x = kernels.tensor(window.length, config.hidden)
    kernels.gather(x, embedding, Uint32Array.from(window))
    return x
  })
  kernels.unload(embedding)
  return streams
}
