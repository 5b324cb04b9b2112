export { setThread, setWide } from './threads'
export { packRows, packColumns, arrange } from './pack'
export { gemm, mirror } from './gemm'
export { gemv, groupSums } from './gemv'
export { gather, stripe } from './rows'
export { unpackScalars, unpackOut, unpackIn, padEntries } from './unpack'
export { rowDots, addTerms, addRows, rotate, rotatedRow } from './terms'
export { fit, round } from './fit'
export { fitTables } from './tables'
export { decodeCodes, sumByCode } from './palette'
export { feedback } from './feedback'
export { descend } from './descend'
export { buildCells, cellsSize } from './cells'
export { packVectors, nearest, clusterSums, neighbours, transpose } from './nearest'
export { packNarrow } from './nearest-narrow'
export { feedbackOut, feedbackIn, decodeVectors, scatterVectors } from './vector-feedback'
export { cluster } from './cluster'
export { softAssign, softmaxGradient } from './soft-assign'
export { distinct } from './distinct'
export { adam } from './adam'
export { columnMoments, scale, times } from './scale'
export { descendOut } from './vector-descend'
export {
  reverse,
  factorBlock,
  transposeBlock,
  antiTranspose,
  diagonal,
  permuteColumns,
  difference,
  rowProducts,
} from './cholesky'
export { rmsNorm, layerNorm, add, rope, activate } from './norm'
export { softmax, entropyParts, divergenceParts } from './softmax'
export { attention } from './attention'
export { encodeRows, decodeRows } from './coded'
export { encodeEntries, multiplyEntries } from './coded-vectors'
export { findOutliers, keepOutliers } from './coded-outliers'
export { attendCoded, joinParts } from './coded-attention'
export { attendCodedPanels } from './coded-panels'
export { attentionGradient, sumHeads } from './attention-gradient'
export { activateGradient, divergenceGradient, entropyGradient } from './gradients'
export { normGradient, normSums } from './norm-gradient'
export { quantizeRows } from './activations'
export { dots } from './dots'
export { tableDots } from './table-dots'
export { panelRows } from './tile'
export { longProbe } from './dots-narrow'
