startNames();
startRows();
startDials();
startCopying();
startScatters();
