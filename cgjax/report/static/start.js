startNames();
startRows();
startDials();
startCopying();
startScatters();
startPrinting();
